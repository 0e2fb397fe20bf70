import assert from "node:assert/strict";
import test from "node:test";
import type { Chain } from "../../src/virtqueue/chain.ts";
import type { PackedRing } from "../../src/virtqueue/packed_ring.ts";
import { AVAIL, NEXT, RawPackedRing, START, USED, WRITE } from "./raw_packed_ring.ts";
import { FREE, GUEST, GUEST_SIZE } from "./raw_ring.ts";

// The device's side of a packed ring, against bytes laid out by hand (virtio 1.4, 2.8).

function take(device: PackedRing): Chain {
  const chain = device.pop();
  assert.ok(chain, "there is a request");
  return chain;
}

/** Takes a request and returns it with some bytes written. */
function serve(device: PackedRing, written = 0): void {
  const chain = take(device);
  chain.written = written;
  device.push(chain);
}

test("what the driver offers is taken, once", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  assert.equal(device.available(), false);
  assert.equal(device.pop(), null);

  ring.bytes.set([1, 2, 3], FREE);
  ring.offer(0, { length: 3, id: 77 });
  assert.equal(device.available(), true);
  const chain = take(device);
  assert.equal(chain.id, 77);
  assert.deepEqual(chain.read(), new Uint8Array([1, 2, 3]));
  assert.deepEqual([device.inFlight, device.available(), device.pop()], [1, false, null]);
});

test("what is returned is seen after publish, not before", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  ring.offer(0, { flags: WRITE, id: 5 });
  const chain = take(device);
  chain.write(new Uint8Array([7, 8, 9]));
  device.push(chain);
  assert.equal(device.inFlight, 0);
  assert.equal(ring.descriptor(0).flags & USED, 0);

  device.publish();
  assert.deepEqual(ring.descriptor(0), { id: 5, length: 3, flags: AVAIL | USED | WRITE });
  assert.deepEqual([...ring.bytes.subarray(FREE, FREE + 4)], [7, 8, 9, 0]);
});

test("a request of which nothing was written says so", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  ring.offer(0, { flags: WRITE, id: 5 });
  serve(device);
  device.publish();
  assert.deepEqual(ring.descriptor(0), { id: 5, length: 0, flags: AVAIL | USED });
});

test("a chain takes the slots that follow; its id stands in the last", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  ring.offer(0, { address: GUEST + FREE, length: 3, flags: NEXT, id: 1 });
  ring.offer(1, { address: GUEST + FREE + 100, length: 4, flags: NEXT, id: 2 });
  ring.offer(2, { address: GUEST + FREE + 200, length: 5, flags: WRITE | NEXT, id: 3 });
  ring.offer(3, { address: GUEST + FREE + 300, length: 6, flags: WRITE, id: 4 });
  const chain = take(device);
  assert.equal(chain.id, 4);
  assert.deepEqual(
    [chain.readable.count, chain.readable.byteLength, chain.writable.count, chain.writable.byteLength],
    [2, 7, 2, 11],
  );
  chain.write(new Uint8Array(11).fill(1));
  assert.deepEqual([...ring.bytes.subarray(FREE + 298, FREE + 307)], [0, 0, 1, 1, 1, 1, 1, 1, 0]);
  device.push(chain);
  device.publish();
  assert.deepEqual(ring.descriptor(0), { id: 4, length: 11, flags: AVAIL | USED | WRITE });
  assert.equal(ring.descriptor(1).id, 2, "one used descriptor for all of it");
  assert.equal(device.base, 0x8004_8004);
});

test(
  "requests are returned in whatever order they are done, into the slots in order",
  { timeout: 5000 },
  (t) => {
    const ring = new RawPackedRing(t);
    const device = ring.device();
    ring.offer(0, { id: 10 });
    ring.offer(1, { flags: NEXT }).offer(2, { id: 11 });
    ring.offer(3, { id: 12 });
    const chains = [take(device), take(device), take(device)];
    for (const i of [1, 2, 0]) device.push(chains[i]);
    device.publish();
    // The chain of two takes two slots, wherever it is returned.
    assert.deepEqual([0, 2, 3].map((slot) => ring.descriptor(slot).id), [11, 12, 10]);
    assert.equal(device.base, 0x8004_8004);
  },
);

test("a batch is shown by its first descriptor, at last", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  for (const slot of [0, 1, 2]) ring.offer(slot, { id: slot });
  for (let i = 0; i < 3; i++) serve(device);
  assert.deepEqual([0, 1, 2].map((slot) => ring.descriptor(slot).flags), [AVAIL, AVAIL | USED, AVAIL | USED]);
  device.publish();
  assert.equal(ring.descriptor(0).flags, AVAIL | USED);
});

test("ids are the driver's affair: any, and the same twice", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  for (const [slot, id] of [0xffff, 9, 9, 0].entries()) ring.offer(slot, { id, length: slot + 1 });
  const chains = [take(device), take(device), take(device), take(device)];
  assert.equal(new Set(chains).size, 4);
  assert.deepEqual(chains.map(({ id }) => id), [0xffff, 9, 9, 0]);
  assert.deepEqual(chains.map(({ readable }) => readable.byteLength), [1, 2, 3, 4]);
  for (const chain of chains.reverse()) device.push(chain);
  device.publish();
  assert.deepEqual([0, 1, 2, 3].map((slot) => ring.descriptor(slot).id), [0, 9, 9, 0xffff]);
});

test("a slot is used again while the request that was there is still in flight", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t, 2);
  const device = ring.device();
  ring.offer(0, { id: 1, length: 11 }).offer(1, { id: 2, length: 12 });
  const slow = take(device);
  serve(device);
  device.publish();
  // Slot 0 has returned the request of slot 1, and is the driver's again.
  assert.equal(ring.descriptor(0).id, 2);
  ring.offer(0, { id: 3, length: 13 }, 2);
  const next = take(device);
  assert.notEqual(next, slow);
  assert.deepEqual([slow.id, slow.readable.byteLength, slow.inFlight], [1, 11, true]);
  assert.deepEqual([next.id, next.readable.byteLength], [3, 13]);
  device.push(next);
  device.push(slow);
  device.publish();
  assert.deepEqual(ring.descriptor(1), { id: 3, length: 0, flags: AVAIL | USED });
  assert.deepEqual(
    ring.descriptor(0),
    { id: 1, length: 0, flags: 0 },
    "the second lap of the used descriptors",
  );
});

for (const size of [1, 3, 5]) {
  test(`a ring of ${size} goes round and round`, { timeout: 5000 }, (t) => {
    const ring = new RawPackedRing(t, size);
    const device = ring.device();
    for (let i = 0; i < 4 * size; i++) {
      const [slot, lap] = [i % size, 1 + Math.floor(i / size)];
      assert.equal(device.available(), false, "what the lap before has left is nothing new");
      ring.offer(slot, { id: i, length: i + 1 }, lap);
      const chain = take(device);
      assert.deepEqual([chain.id, chain.readable.byteLength], [i, i + 1]);
      device.push(chain);
      device.publish();
      assert.deepEqual(ring.descriptor(slot), { id: i, length: 0, flags: lap % 2 === 1 ? AVAIL | USED : 0 });
    }
  });
}

test("a chain goes over the end of the ring", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t, 5);
  const device = ring.device({ base: 0x8003_8003 });
  ring.offer(3, { flags: NEXT, length: 1 }).offer(4, { flags: NEXT, length: 2 });
  ring.offer(0, { id: 6, length: 3 }, 2);
  const chain = take(device);
  assert.deepEqual([chain.id, chain.readable.byteLength], [6, 6]);
  assert.equal(device.base, 0x8003_0001);
  device.push(chain);
  device.publish();
  assert.deepEqual(ring.descriptor(3), { id: 6, length: 0, flags: AVAIL | USED });
  assert.equal(device.base, 0x0001_0001);
  ring.offer(1, { id: 7 }, 2);
  serve(device);
  device.publish();
  assert.deepEqual(ring.descriptor(1), { id: 7, length: 0, flags: 0 });
});

test("a full ring of requests at once, twice", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  for (const lap of [1, 2]) {
    for (let slot = 0; slot < 8; slot++) ring.offer(slot, { id: slot }, lap);
    const chains = Array.from({ length: 8 }, () => take(device));
    assert.deepEqual([device.inFlight, device.pop()], [8, null]);
    for (const chain of chains) device.push(chain);
    assert.equal(device.inFlight, 0);
    device.publish();
  }
  assert.equal(device.base, START);
});

test("a chain of as many descriptors as the ring has", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  for (const lap of [1, 2]) {
    for (let slot = 0; slot < 8; slot++) ring.offer(slot, { id: 3, flags: slot < 7 ? NEXT : 0 }, lap);
    const chain = take(device);
    assert.deepEqual([chain.slots, chain.readable.count, device.pop()], [8, 8, null]);
    device.push(chain);
    device.publish();
    assert.deepEqual(ring.descriptor(0), { id: 3, length: 0, flags: lap === 1 ? AVAIL | USED : 0 });
  }
});

test("descriptors without bytes are skipped", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  ring.offer(0, { length: 0, address: 0, flags: NEXT }).offer(1, { length: 2, flags: NEXT });
  ring.offer(2, { length: 0, address: 0, flags: WRITE });
  const chain = take(device);
  assert.deepEqual([chain.readable.count, chain.readable.byteLength, chain.writable.count], [1, 2, 0]);
  assert.equal(chain.slots, 3);
});

test(
  "a table is read from its start to its end, whatever its flags say beside WRITE",
  { timeout: 5000 },
  (t) => {
    const ring = new RawPackedRing(t);
    const device = ring.device();
    // NEXT, INDIRECT and all the rest are reserved in a table, and ignored (virtio 1.4, 2.8.7).
    ring.offerTable(0, [
      { address: GUEST + 0x8000, length: 1, flags: 0xffff & ~WRITE, id: 99 },
      { address: GUEST + 0x8010, length: 2 },
      { address: GUEST + 0x8020, length: 4, flags: WRITE },
    ], { id: 4, flags: 4 | WRITE });
    const chain = take(device);
    assert.deepEqual([chain.id, chain.slots], [4, 1]);
    assert.deepEqual([chain.readable.byteLength, chain.writable.byteLength], [3, 4]);
  },
);

test("a table may be longer than the ring", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t, 1);
  const device = ring.device();
  ring.offerTable(0, Array.from({ length: 1024 }, () => ({ length: 1 })));
  assert.equal(take(device).readable.byteLength, 1024);
});

test("a ring is taken over where an earlier device left it", { timeout: 5000 }, (t) => {
  for (const base of [0x8005_8005, 0x0005_0005, 0x8005_0001, 0x0000_0000]) {
    const ring = new RawPackedRing(t);
    ring.offer(7, {}, 2);
    assert.equal(ring.device({ base }).base, base);
  }
});

test("who knows of one position only gives it in the lower half", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  assert.equal(ring.device({ base: 0x8003 }).base, 0x8003_8003);
  // But this is a position that a ring comes to.
  assert.equal(ring.device({ base: 0x0003 }).base, 0x0003);
});

test("0 is the start of a ring in which nothing was ever returned", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  assert.equal(ring.device({ base: 0 }).base, START);
  ring.offer(0, { id: 3 });
  assert.equal(take(ring.device({ base: 0 })).id, 3);

  // The first lap ended with a chain from slot 7 on, so that slot 0 is still as the driver wrote it.
  const lapped = new RawPackedRing(t);
  const device = lapped.device({ base: 0x0007_0007 });
  lapped.offer(7, { flags: NEXT }, 2).offer(0, {}, 1);
  serve(device);
  for (let slot = 1; slot < 8; slot++) {
    lapped.offer(slot, {}, 1);
    serve(device);
  }
  device.publish();
  assert.equal(device.base, 0);
  assert.equal(lapped.descriptor(0).flags, AVAIL);
  assert.equal(lapped.device({ base: 0 }).base, 0);
});

test("a base must name slots that the ring has", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  assert.throws(() => ring.device({ base: 0x8000_8008 }), {
    name: "RingError",
    message: "base: next available slot must be below the ring's 8 entries, got 8",
  });
  assert.throws(() => ring.device({ base: 0xffff_8000 }), {
    name: "RingError",
    message: "base: next used slot must be below the ring's 8 entries, got 32767",
  });
});

test("a ring has 1 to 32768 entries", { timeout: 5000 }, (t) => {
  for (const size of [0, -8, 1.5, NaN, 32769]) {
    assert.throws(() => new RawPackedRing(t, size).device(), {
      name: "RangeError",
      message: `packed ring size must be from 1 to 32768, got ${size}`,
    });
  }
});

test("memory that moves while requests are in flight", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  ring.offer(0, { id: 1 }).offer(1, { id: 2 });
  const chain = take(device);
  const [region] = ring.memory.regions;
  ring.bytes.copyWithin(0xc000, 0, 0x1000);
  device.bind({
    descriptor: { region, offset: 0xc000 },
    available: { region, offset: 0xc400 },
    used: { region, offset: 0xc800 },
  });
  assert.equal(take(device).id, 2);
  device.push(chain);
  device.publish();
  assert.equal(ring.view.getUint16(0xc00e, true), AVAIL | USED);
  assert.equal(ring.descriptor(0).flags, AVAIL, "the old place is left alone");
});

test("the last bytes of the guest's memory can be named", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  ring.offer(0, { address: GUEST + GUEST_SIZE - 16, length: 16 });
  assert.equal(take(device).readable.byteLength, 16);
});
