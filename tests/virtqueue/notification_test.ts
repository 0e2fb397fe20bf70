import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { SplitRing } from "../../src/virtqueue/split_ring.ts";
import { needEvent, splitRingSizes } from "../../src/virtqueue/split_layout.ts";
import { RawRing } from "./raw_ring.ts";

/** Takes a request and returns it. Says whether the driver wants to be told. */
function serve(ring: RawRing, device: SplitRing, count = 1): boolean {
  for (let i = 0; i < count; i++) {
    ring.offer(i);
    const chain = device.pop();
    assert.ok(chain);
    device.push(chain);
  }
  return device.publish();
}

/** Returns the first request: of that the driver is always told. */
function warm(ring: RawRing, device: SplitRing): void {
  for (let i = 0; i < ring.size; i++) ring.descriptor(i);
  serve(ring, device);
}

test("each part of a ring has the bytes that virtio says", { timeout: 5000 }, () => {
  assert.deepEqual(splitRingSizes(8, false), { descriptor: 128, available: 20, used: 68 });
  assert.deepEqual(splitRingSizes(8, true), { descriptor: 128, available: 22, used: 70 });
  assert.deepEqual(splitRingSizes(32768, true), { descriptor: 524288, available: 65542, used: 262150 });
});

test("to be told means: the event's index was passed on the way", { timeout: 5000 }, () => {
  const index = fc.integer({ min: 0, max: 0xffff });
  fc.assert(
    fc.property(
      index,
      fc.integer({ min: 0, max: 300 }),
      fc.integer({ min: -310, max: 310 }),
      (before, n, off) => {
        const event = (before + off) & 0xffff;
        const passed = Array.from({ length: n }, (_, i) => (before + i) & 0xffff);
        assert.equal(needEvent(event, (before + n) & 0xffff, before), passed.includes(event));
      },
    ),
    { seed: 0x5eed, numRuns: 1000 },
  );
});

test("nothing returned is nothing to tell", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  assert.equal(device.publish(), false);
  warm(ring, device);
  assert.equal(device.publish(), false);
});

for (const eventIdx of [false, true]) {
  test(
    `of the first return the driver is told whatever it said (event_idx ${eventIdx})`,
    { timeout: 5000 },
    (t) => {
      const ring = new RawRing(t);
      const device = ring.device({ eventIdx });
      ring.descriptor(0);
      if (eventIdx) ring.usedEvent = 1000;
      else ring.availableFlags = 1;
      assert.equal(serve(ring, device), true);
      assert.equal(serve(ring, device), false);
    },
  );
}

test("without event_idx the driver says by its flags", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  warm(ring, device);
  assert.equal(serve(ring, device), true);
  ring.availableFlags = 1;
  assert.equal(serve(ring, device), false);
  ring.availableFlags = 0;
  assert.equal(serve(ring, device), true);
});

test("with event_idx the driver says by an index, and its flags mean nothing", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device({ eventIdx: true });
  warm(ring, device);
  ring.availableFlags = 1;
  ring.usedEvent = 1;
  assert.equal(serve(ring, device), true, "index 1 was passed");
  assert.equal(serve(ring, device), false, "it is behind");
  ring.usedEvent = 6;
  assert.equal(serve(ring, device, 3), false, "3, 4 and 5");
  assert.equal(serve(ring, device, 3), true, "6, 7 and 8");
});

test("with event_idx an index is passed across 65535 too", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  ring.availableIndex = ring.usedIndex = 0xfffd;
  const device = ring.device({ eventIdx: true, base: 0xfffd });
  warm(ring, device);
  ring.usedEvent = 0;
  assert.equal(serve(ring, device, 2), false, "65534 and 65535");
  assert.equal(serve(ring, device, 2), true, "0 and 1");
});

test("without event_idx a device says by its flags whether to be told", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  device.suppress();
  assert.equal(ring.usedFlags, 1);
  assert.equal(device.arm(), false);
  assert.equal(ring.usedFlags, 0);
  device.suppress();
  device.suppress();
  assert.equal(ring.usedFlags, 1);
});

test("what an earlier device left in the flags does not keep the driver quiet", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  ring.usedFlags = 1;
  assert.equal(ring.device().arm(), false);
  assert.equal(ring.usedFlags, 0);
});

test("with event_idx a device says by an index, in place of its flags", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device({ eventIdx: true });
  ring.availableEvent = 0x5555;
  device.suppress();
  assert.deepEqual([ring.usedFlags, ring.availableEvent], [0, 0x5555]);
  assert.equal(device.arm(), false);
  assert.deepEqual([ring.usedFlags, ring.availableEvent], [0, 0]);
  warm(ring, device);
  assert.equal(ring.availableEvent, 0, "only when it goes to sleep");
  device.arm();
  assert.equal(ring.availableEvent, 1);
});

for (const eventIdx of [false, true]) {
  test(`who asks to be told learns what has come already (event_idx ${eventIdx})`, { timeout: 5000 }, (t) => {
    const ring = new RawRing(t);
    const device = ring.device({ eventIdx });
    assert.equal(device.arm(), false);
    ring.descriptor(0).descriptor(1).offer(0, 1);
    assert.equal(device.arm(), true);
    device.pop();
    assert.equal(device.arm(), true, "one is left");
    device.pop();
    assert.equal(device.arm(), false);
    assert.equal(device.available(), false);
  });
}

test("without event_idx nothing is written where the event words would be", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  ring.availableEvent = 0x7777;
  const device = ring.device();
  warm(ring, device);
  device.arm();
  device.suppress();
  assert.equal(ring.availableEvent, 0x7777);
});
