import assert from "node:assert/strict";
import test from "node:test";
import { FREE, GUEST, NEXT, RawRing, WRITE } from "./raw_ring.ts";

// The device's side of a split ring, against bytes laid out by hand (virtio 1.4, 2.7).

test("what the driver offers is taken, once", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  assert.equal(device.available(), false);
  assert.equal(device.pop(), null);

  ring.bytes.set([1, 2, 3], FREE);
  ring.descriptor(5, { length: 3 }).offer(5);
  assert.equal(device.available(), true);
  const chain = device.pop();
  assert.equal(chain?.head, 5);
  assert.deepEqual(chain?.read(), new Uint8Array([1, 2, 3]));
  assert.deepEqual([device.inFlight, device.base], [1, 1]);
  assert.equal(device.available(), false);
  assert.equal(device.pop(), null);
});

test("what is returned is seen after publish, not before", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  ring.descriptor(5, { flags: WRITE }).offer(5);
  const chain = device.pop();
  assert.ok(chain);
  chain.write(new Uint8Array([7, 8, 9]));
  device.push(chain);
  assert.equal(device.inFlight, 0);
  assert.equal(ring.usedIndex, 0);

  device.publish();
  assert.equal(ring.usedIndex, 1);
  assert.deepEqual(ring.usedElement(0), [5, 3]);
  assert.deepEqual([...ring.bytes.subarray(FREE, FREE + 4)], [7, 8, 9, 0]);
});

test("requests are returned in whatever order they are done", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  for (const head of [1, 4, 6]) ring.descriptor(head, { flags: WRITE }).offer(head);
  const chains = [device.pop(), device.pop(), device.pop()];
  for (const i of [2, 0, 1]) {
    const chain = chains[i];
    assert.ok(chain);
    chain.written = 10 + i;
    device.push(chain);
  }
  device.publish();
  assert.equal(ring.usedIndex, 3);
  assert.deepEqual([0, 1, 2].map((slot) => ring.usedElement(slot)), [[6, 12], [1, 10], [4, 11]]);
});

test("indices run on past 65535, slots go round", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  ring.availableIndex = ring.usedIndex = 0xfffe;
  const device = ring.device({ base: 0xfffe });
  for (const head of [0, 1, 2, 3]) ring.descriptor(head, { length: head + 1 }).offer(head);
  assert.equal(ring.availableIndex, 2);

  for (const head of [0, 1, 2, 3]) {
    const chain = device.pop();
    assert.deepEqual([chain?.head, chain?.readable.byteLength], [head, head + 1]);
    if (chain) device.push(chain);
  }
  assert.equal(device.pop(), null);
  assert.equal(device.base, 2);
  device.publish();
  assert.equal(ring.usedIndex, 2);
  assert.deepEqual([6, 7, 0, 1].map((slot) => ring.usedElement(slot)[0]), [0, 1, 2, 3]);
});

test("a ring is taken over where an earlier device left it", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  ring.availableIndex = 7;
  ring.usedIndex = 4;
  const device = ring.device({ base: 7 });
  assert.equal(device.base, 7);
  assert.equal(device.available(), false);
  ring.descriptor(2).offer(2);
  const chain = device.pop();
  assert.ok(chain);
  device.push(chain);
  device.publish();
  assert.deepEqual([device.base, ring.usedIndex, ring.usedElement(4)], [8, 5, [2, 0]]);
});

test("only 16 bits of a base count", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  assert.equal(ring.device({ base: 0x1_0003 }).base, 3);
});

test("a full ring of requests at once", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  for (let head = 0; head < 8; head++) ring.descriptor(head).offer(head);
  const heads = Array.from({ length: 8 }, () => device.pop()?.head);
  assert.deepEqual(heads, [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.equal(device.inFlight, 8);
  assert.equal(device.pop(), null);
});

test("a chain is followed: readable parts, then writable ones", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  ring.descriptor(7, { address: GUEST + FREE, length: 3, flags: NEXT, next: 0 });
  ring.descriptor(0, { address: GUEST + FREE + 100, length: 4, flags: NEXT, next: 3 });
  ring.descriptor(3, { address: GUEST + FREE + 200, length: 5, flags: WRITE | NEXT, next: 2 });
  ring.descriptor(2, { address: GUEST + FREE + 300, length: 6, flags: WRITE, next: 7 });
  ring.offer(7);
  const chain = device.pop();
  assert.ok(chain);
  assert.deepEqual(
    [chain.readable.count, chain.readable.byteLength, chain.writable.count, chain.writable.byteLength],
    [2, 7, 2, 11],
  );
  chain.write(new Uint8Array(11).fill(1));
  assert.deepEqual([ring.bytes[FREE + 204], ring.bytes[FREE + 205], ring.bytes[FREE + 305]], [1, 0, 1]);
});

test("as many descriptors as the ring has are a chain, not a loop", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  for (let i = 0; i < 8; i++) ring.descriptor(i, { length: 1, flags: i < 7 ? NEXT : 0, next: i + 1 });
  ring.offer(0);
  assert.equal(device.pop()?.readable.byteLength, 8);
});

test("a descriptor without bytes means nothing", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  ring.descriptor(0, { length: 0, address: 0, flags: NEXT, next: 1 });
  ring.descriptor(1, { length: 2, flags: NEXT, next: 2 });
  ring.descriptor(2, { length: 0, address: 0, flags: WRITE });
  ring.offer(0);
  const chain = device.pop();
  assert.deepEqual([chain?.readable.count, chain?.writable.count], [1, 0]);
});

test("a driver that changes a descriptor too late changes nothing", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  ring.descriptor(0, { length: 8, flags: WRITE }).offer(0);
  const chain = device.pop();
  ring.descriptor(0, { address: 0, length: 0xffff_ffff });
  assert.equal(chain?.writable.byteLength, 8);
  assert.equal(chain?.write(new Uint8Array(100)), 8);
});

test(
  "a table is followed as a chain is, and its own flags for writing mean nothing",
  { timeout: 5000 },
  (t) => {
    const ring = new RawRing(t);
    const device = ring.device();
    ring.table(1, FREE, [
      { address: GUEST + FREE + 500, length: 2, flags: NEXT, next: 2 },
      { address: GUEST + FREE + 700, length: 4, flags: WRITE },
      { address: GUEST + FREE + 600, length: 3, flags: NEXT, next: 1 },
    ], { flags: 4 | WRITE }).offer(1);
    const chain = device.pop();
    assert.deepEqual([chain?.readable.byteLength, chain?.writable.byteLength], [5, 4]);
    assert.equal(chain?.head, 1);
  },
);

test("a table may come last in a chain", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  ring.descriptor(6, { length: 3, flags: NEXT, next: 2 });
  ring.table(2, FREE, [{ length: 4, flags: NEXT, next: 1 }, { length: 5, flags: WRITE }]);
  ring.offer(6);
  const chain = device.pop();
  assert.deepEqual([chain?.readable.byteLength, chain?.writable.byteLength], [7, 5]);
});

test("a table may be longer than the ring", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  const long = Array.from({ length: 300 }, (_, i) => ({ length: 1, flags: i < 299 ? NEXT : 0, next: i + 1 }));
  ring.table(0, FREE, long).offer(0);
  assert.equal(device.pop()?.readable.count, 300);
});

test("a table may lie across two regions, a descriptor and an address in it too", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  for (const cut of [0, 3, 4, 8, 11, 12, 15, 16, 20]) {
    ring.usedIndex = ring.availableIndex = 0;
    ring.map([[0, 0x2000 + cut], [0x2000 + cut, 0x10000]]);
    const device = ring.device();
    ring.table(0, 0x2000, [
      { address: GUEST + 0x3001, length: 0x123, flags: NEXT, next: 1 },
      { address: GUEST + 0x4002, length: 0x456, flags: WRITE },
    ]).offer(0);
    const chain = device.pop();
    assert.ok(chain, `cut at ${cut}`);
    assert.deepEqual([chain.readable.byteLength, chain.writable.byteLength], [0x123, 0x456], `cut at ${cut}`);
    chain.write(new Uint8Array([cut + 1]));
    assert.equal(ring.bytes[0x4002], cut + 1);
  }
});

test("a ring goes on where its memory moves to", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  ring.descriptor(0, { flags: WRITE }).descriptor(1, { flags: WRITE }).offer(0, 1);
  const first = device.pop();
  assert.ok(first);
  first.pin();

  // The front-end takes everything away and maps it anew, in two regions: new addresses, new buffers.
  ring.map([[0, 0x1000], [0x1000, 0x10000]]);
  const region = ring.memory.find(GUEST);
  assert.ok(region);
  device.bind({
    descriptor: { region, offset: 0 },
    available: { region, offset: 0x400 },
    used: { region, offset: 0x800 },
  });

  const second = device.pop();
  assert.equal(second?.head, 1);
  first.write(new Uint8Array([1]));
  first.unpin();
  device.push(first);
  if (second) device.push(second);
  assert.equal(device.publish(), true);
  assert.deepEqual([ring.usedIndex, ring.usedElement(0), ring.usedElement(1)], [2, [0, 1], [1, 0]]);
  ring.offer(0);
  assert.equal(device.pop()?.head, 0);
});

test(
  "once the memory has gone, a ring that was not moved finds nothing and harms nobody",
  { timeout: 5000 },
  (t) => {
    const ring = new RawRing(t);
    const device = ring.device();
    ring.descriptor(0).offer(0);
    ring.map([]);
    assert.throws(() => device.pop());
    assert.equal(ring.availableIndex, 1);
  },
);
