import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  advancePosition,
  needPackedEvent,
  PACKED_START,
  packedBase,
  packedPosition,
  packedRingSizes,
} from "../../src/virtqueue/packed_layout.ts";
import type { PackedRing } from "../../src/virtqueue/packed_ring.ts";
import { RawPackedRing } from "./raw_packed_ring.ts";

// Who wants to be told of what (virtio 1.4, 2.8.10).

const ENABLE = 0;
const DISABLE = 1;
const DESC = 2;
const RESERVED = 3;

/** Offers single descriptors from a slot of the first lap on, returns them, and says whether the driver is to be told. */
function serve(ring: RawPackedRing, device: PackedRing, from: number, count = 1): boolean {
  for (let i = from; i < from + count; i++) {
    ring.offer(i % ring.size, {}, 1 + Math.floor(i / ring.size));
    const chain = device.pop();
    assert.ok(chain);
    device.push(chain);
  }
  return device.publish();
}

test("each part of a ring has the bytes that virtio says", { timeout: 5000 }, () => {
  assert.deepEqual(packedRingSizes(8), { descriptor: 128, available: 4, used: 4 });
  assert.deepEqual(packedRingSizes(32768), { descriptor: 524288, available: 4, used: 4 });
});

test("positions count on, lap by lap", { timeout: 5000 }, () => {
  assert.equal(PACKED_START, 0x8000_8000);
  assert.equal(packedBase(packedPosition(3, false), packedPosition(2, true)), 0x8002_0003);
  const size = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constant(32768));
  fc.assert(
    fc.property(size, fc.nat(), fc.nat(), (size, start, steps) => {
      const of = (n: number): number => packedPosition(n % size, Math.floor(n / size) % 2 === 0);
      const by = steps % (size + 1);
      assert.equal(advancePosition(of(start), by, size), of(start + by));
    }),
    { seed: 0x5eed, numRuns: 1000 },
  );
});

test("to be told means: the event's descriptor was passed on the way", { timeout: 5000 }, () => {
  const size = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constant(32768));
  fc.assert(
    fc.property(size, fc.nat(100_000), fc.nat(), fc.nat(), (size, start, n, off) => {
      const count = 1 + n % size;
      // Where the other side may be: what it has seen, and a lap ahead of that.
      const event = start + off % (2 * size);
      const position = (at: number): number => packedPosition(at % size, Math.floor(at / size) % 2 === 0);
      const word = DESC << 16 | position(event);
      const told = needPackedEvent(word, true, position(start + count), position(start) & 0x7fff, size);
      assert.equal(told, event >= start && event < start + count);
    }),
    { seed: 0x5eed, numRuns: 5000 },
  );
});

for (const eventIdx of [false, true]) {
  test(`everything, or nothing (event_idx ${eventIdx})`, { timeout: 5000 }, (t) => {
    const ring = new RawPackedRing(t).wish(DISABLE);
    const device = ring.device({ eventIdx });
    assert.equal(serve(ring, device, 0), true, "of the first return the driver is told whatever it said");
    assert.equal(serve(ring, device, 1), false);
    ring.wish(ENABLE);
    assert.equal(serve(ring, device, 2), true);
    ring.wish(RESERVED);
    assert.equal(serve(ring, device, 3), true, "needlessly rather than not");
    assert.equal(device.publish(), false, "nothing returned is nothing to tell");
  });
}

test("one descriptor, in this lap or the next", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device({ eventIdx: true });
  serve(ring, device, 0);
  ring.wish(DESC, 3);
  assert.deepEqual([1, 2, 3, 4].map((at) => serve(ring, device, at)), [false, false, true, false]);
  ring.wish(DESC, 6);
  assert.equal(serve(ring, device, 5, 2), true, "within a batch");
  ring.wish(DESC, 1, 0);
  assert.deepEqual([7, 8, 9].map((at) => serve(ring, device, at)), [false, false, true]);
  ring.wish(DESC, 2, 1);
  assert.equal(serve(ring, device, 10, 6), false, "a slot of the next lap");
  assert.equal(serve(ring, device, 16, 8), true, "in a batch of a whole lap");
  ring.wish(DESC, 0, 0);
  assert.equal(serve(ring, device, 24, 8), true);
});

test("without EVENT_IDX nobody asks for one descriptor", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  serve(ring, device, 0);
  ring.wish(DESC, 7);
  assert.equal(serve(ring, device, 1), true);
});

test("the device says what it wants", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device({ base: 0x0005_0005 });
  device.suppress();
  assert.equal(ring.deviceWish.flags, DISABLE);
  assert.equal(device.arm(), false);
  assert.equal(ring.deviceWish.flags, ENABLE);

  const indexed = ring.device({ base: 0x0005_0005, eventIdx: true });
  assert.equal(indexed.arm(), false);
  assert.deepEqual(ring.deviceWish, { flags: DESC, slot: 5, wrap: 0 });
  indexed.suppress();
  assert.equal(ring.deviceWish.flags, DISABLE);
  const wrapped = ring.device({ base: 0x8005_8005, eventIdx: true });
  wrapped.arm();
  assert.deepEqual(ring.deviceWish, { flags: DESC, slot: 5, wrap: 1 });
});

test("what comes in while the device falls asleep is found", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device({ eventIdx: true });
  ring.offer(0);
  assert.equal(device.arm(), true);
  device.pop();
  assert.equal(device.arm(), false);
});
