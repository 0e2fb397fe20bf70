import assert from "node:assert/strict";
import test from "node:test";
import { Struct, u16, u32, u64, u8 } from "../../src/protocol/struct.ts";
import { FREE, GUEST, INDIRECT, NEXT, RawRing, WRITE } from "./raw_ring.ts";

// The device's side of a split ring, against bytes that are laid out big-endian by hand (virtio 1.4, 2.7.3).

const LIMIT = { timeout: 5000 };

test("every field of a big-endian ring is big-endian", LIMIT, (t) => {
  const ring = new RawRing(t, 8, "big");
  const device = ring.device({ eventIdx: true, base: 0x1ff });
  // What a device that takes these for little-endian would see: another index, head, address and length.
  ring.availableIndex = 0x1ff;
  ring.bytes.set([1, 2, 3], FREE);
  ring.descriptor(5, { length: 3, flags: NEXT, next: 2 }).descriptor(2, {
    address: GUEST + FREE + 0x100,
    length: 0x102,
    flags: WRITE,
  });
  ring.offer(5);
  assert.deepEqual([...ring.bytes.subarray(5 * 16, 5 * 16 + 16)], [
    ...[0, 0, 0, 0, 0, 0x10, 0x10, 0],
    ...[0, 0, 0, 3, 0, NEXT, 0, 2],
  ]);
  assert.equal(device.available(), true);
  const chain = device.pop();
  assert.ok(chain);
  assert.deepEqual([chain.head, chain.endianness, chain.writable.byteLength], [5, "big", 0x102]);
  assert.deepEqual(chain.read(), new Uint8Array([1, 2, 3]));
  chain.write(new Uint8Array(0x101).fill(7));
  device.push(chain);
  ring.usedEvent = 0;
  assert.equal(device.publish(), true);
  assert.equal(ring.usedIndex, 1);
  assert.deepEqual(ring.usedElement(0), [5, 0x101]);
  assert.equal(device.base, 0x200);
  assert.equal(device.arm(), false);
  assert.equal(ring.availableEvent, 0x200);
});

test("flags and events of a big-endian driver are heard", LIMIT, (t) => {
  const ring = new RawRing(t, 8, "big");
  const device = ring.device();
  const give = (): boolean => {
    const chain = device.pop();
    assert.ok(chain);
    device.push(chain);
    return device.publish();
  };
  ring.descriptor(0).offer(0);
  assert.equal(give(), true);
  ring.availableFlags = 1;
  ring.offer(0);
  assert.equal(give(), false, "the driver wants no interrupts");
  ring.availableFlags = 0x100;
  ring.offer(0);
  assert.equal(give(), true, "that is another flag");
  device.suppress();
  assert.equal(ring.usedFlags, 1);
  device.arm();
  assert.equal(ring.usedFlags, 0);

  const other = new RawRing(t, 8, "big");
  const eventful = other.device({ eventIdx: true });
  const told: boolean[] = [];
  for (let i = 0; i < 4; i++) {
    other.usedEvent = 2;
    other.descriptor(0).offer(0);
    const chain = eventful.pop();
    assert.ok(chain);
    eventful.push(chain);
    told.push(eventful.publish());
  }
  assert.deepEqual(told, [true, false, true, false], "the first, and the one that was asked for");
});

test("indirect tables are big-endian too, also where they are cut", LIMIT, (t) => {
  const ring = new RawRing(t, 8, "big");
  const at = FREE + 0x1000 - 20;
  ring.map([[0, FREE + 0x1000], [FREE + 0x1000, 0x8000]]);
  const device = ring.device();
  ring.bytes.set([9, 8, 7], FREE);
  ring.table(3, at, [
    { length: 1, flags: NEXT, next: 2 },
    { address: GUEST + FREE + 0x20, length: 0x203, flags: WRITE },
    { address: GUEST + FREE + 1, length: 2, flags: NEXT, next: 1 },
  ]).offer(3);
  const chain = device.pop();
  assert.ok(chain);
  assert.deepEqual(chain.read(), new Uint8Array([9, 8, 7]));
  assert.equal(chain.writable.byteLength, 0x203);
});

test("a broken big-endian ring is found out as another is", LIMIT, (t) => {
  const broken = (build: (ring: RawRing) => void, complaint: RegExp): void => {
    const ring = new RawRing(t, 8, "big");
    const device = ring.device();
    build(ring);
    assert.throws(() => device.pop(), complaint);
  };
  broken((ring) => ring.offer(8), /head 8 at available index 0/);
  broken((ring) => ring.availableIndex = 9, /available index 9 is 9 ahead/);
  broken((ring) => ring.descriptor(0, { flags: NEXT, next: 8 }).offer(0), /next descriptor 8 of head 0/);
  broken(
    (ring) => ring.descriptor(0, { flags: NEXT, next: 1 }).descriptor(1, { flags: NEXT }).offer(0),
    /chain of head 0 has a loop/,
  );
  broken((ring) => ring.descriptor(0, { address: 1n << 40n }).offer(0), /0x10000000000\+16 is not in guest/);
  broken(
    (ring) => ring.table(0, FREE, [{ flags: NEXT, next: 0 }]).offer(0),
    /indirect table at descriptor 0 has a loop/,
  );
  broken((ring) => ring.table(0, FREE, [{ flags: INDIRECT }]).offer(0), /nested table/);
  broken((ring) => ring.table(0, FREE, [{}], { length: 15 }).offer(0), /indirect table of 15 bytes/);
});

test("numbers in the requests of a big-endian driver are big-endian", LIMIT, (t) => {
  const struct = new Struct<{ a: number; b: number; c: number; d: bigint }>({
    a: u8,
    b: u16,
    c: u32,
    d: u64,
  });
  const value = { a: 1, b: 0x203, c: 0x4050607, d: 0x8090a0b0c0d0e0fn };
  const ring = new RawRing(t, 8, "big");
  const device = ring.device();
  ring.bytes.set(struct.encode(value, "big"), FREE);
  // The first number of eight bytes is cut in two.
  ring.descriptor(0, { length: 12, flags: NEXT, next: 1 })
    .descriptor(1, { address: GUEST + FREE + 12, length: 4, flags: NEXT, next: 2 })
    .descriptor(2, { address: GUEST + FREE + 64, length: 16, flags: WRITE }).offer(0);
  const chain = device.pop();
  assert.ok(chain);
  const { readable } = chain;
  assert.deepEqual(
    [readable.getUint16(2), readable.getUint32(4), readable.getUint64(8)],
    [0x203, 0x4050607, Number(0x8090a0b0c0d0e0fn)],
  );
  assert.throws(() => readable.getUint32(13), RangeError);
  assert.deepEqual(chain.readStruct(struct), value);
  chain.writeStruct(struct, value);
  assert.deepEqual(ring.bytes.slice(FREE + 64, FREE + 80), ring.bytes.slice(FREE, FREE + 16));
});

test("a structure that is big-endian by itself is so for every driver", LIMIT, (t) => {
  const struct = new Struct<{ a: number }>({ a: u32 }, "big");
  for (const endianness of ["little", "big"] as const) {
    const ring = new RawRing(t, 8, endianness);
    const device = ring.device();
    ring.bytes.set([1, 2, 3, 4], FREE);
    ring.descriptor(0, { length: 4 }).offer(0);
    assert.deepEqual(device.pop()?.readStruct(struct), { a: 0x1020304 });
  }
});
