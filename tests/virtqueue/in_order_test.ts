import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import type { DriverRing, Used } from "../../src/frontend/driver_ring.ts";
import { DriverRingError } from "../../src/frontend/driver_ring.ts";
import type { Chain } from "../../src/virtqueue/chain.ts";
import { advancePosition, usedFlags, WRAP } from "../../src/virtqueue/packed_layout.ts";
import { type Pair, ringPair } from "./ring_pair.ts";

// Buffers are used in the order in which they were made available (IN_ORDER; virtio 1.4, 2.7.9 and 2.8.8).

function pairOf(t: Pick<TestContext, "after">, packed: boolean, size = 8): Pair {
  return ringPair(t, { size, packed, eventIdx: false, inOrder: true });
}

/** Adds a request of some descriptors, the last of which is to be written. Returns what the driver calls it. */
function add({ driver, data }: Pair, count: number, room = 10): number {
  const buffer = { guestAddress: data.guestAddress, length: 1 };
  return driver.add(new Array(count - 1).fill(buffer), [{ ...buffer, length: room }]);
}

function take({ device }: Pair): Chain {
  const chain = device.pop();
  assert.ok(chain);
  return chain;
}

function collect(driver: DriverRing): Used[] {
  const all: Used[] = [];
  for (let used = driver.take(); used !== null; used = driver.take()) all.push(used);
  return all;
}

/** A device that names only the last request of a batch. Written by hand: ours names each. */
class BatchingDevice {
  readonly #pair: Pair;
  readonly #packed: boolean;
  #index = 0;
  #position = WRAP;

  constructor(pair: Pair, packed: boolean) {
    this.#pair = pair;
    this.#packed = packed;
  }

  /** Returns requests, given by their descriptors, up to one. */
  return(descriptors: readonly number[], last: number, written: number): void {
    const { driver: { size, used, descriptor } } = this.#pair;
    if (this.#packed) {
      const view = new DataView(descriptor.bytes.buffer, descriptor.bytes.byteOffset);
      const at = (this.#position & ~WRAP) * 16;
      view.setUint32(at + 8, written, true);
      view.setUint16(at + 12, last, true);
      view.setUint16(at + 14, usedFlags(this.#position >= WRAP) | (written > 0 ? 2 : 0), true);
      const slots = descriptors.reduce((sum, count) => sum + count, 0);
      this.#position = advancePosition(this.#position, slots, size);
    } else {
      const view = new DataView(used.bytes.buffer, used.bytes.byteOffset);
      const at = 4 + 8 * (this.#index % size);
      view.setUint32(at, last, true);
      view.setUint32(at + 4, written, true);
      this.#index = (this.#index + descriptors.length) & 0xffff;
      view.setUint16(2, this.#index, true);
    }
  }
}

for (const [format, packed] of [["split", false], ["packed", true]] as const) {
  test(`${format}: what completes early waits for its turn`, { timeout: 5000 }, (t) => {
    const pair = pairOf(t, packed);
    const { device, driver } = pair;
    const heads = [add(pair, 1), add(pair, 2), add(pair, 1)];
    driver.publish();
    const chains = [take(pair), take(pair), take(pair)];
    for (const i of [2, 1]) {
      chains[i].written = 5 + i;
      device.push(chains[i]);
      assert.equal(device.publish(), false, "nothing to tell of");
      assert.equal(device.inFlight, 3, "the driver has none back");
    }
    assert.equal(driver.take(), null);

    chains[0].written = 5;
    device.push(chains[0]);
    assert.equal(device.inFlight, 0);
    device.publish();
    assert.deepEqual(collect(driver), heads.map((head, i) => ({ head, written: 5 + i })));
    assert.ok(chains.every(({ inFlight }) => !inFlight));
  });

  test(`${format}: what is in turn does not wait`, { timeout: 5000 }, (t) => {
    const pair = pairOf(t, packed);
    const { device, driver } = pair;
    const [first, second] = [add(pair, 1), add(pair, 1)];
    driver.publish();
    device.push(take(pair));
    device.publish();
    assert.equal(driver.take()?.head, first);
    device.push(take(pair));
    device.publish();
    assert.equal(driver.take()?.head, second);
  });

  test(`${format}: a driver understands that a batch was returned by its last`, { timeout: 5000 }, (t) => {
    const pair = pairOf(t, packed);
    const { driver } = pair;
    const heads = [add(pair, 1, 100), add(pair, 2, 200), add(pair, 1, 300), add(pair, 1, 400)];
    driver.publish();
    const device = new BatchingDevice(pair, packed);
    device.return([1, 2, 1], heads[2], 7);
    // Those that were skipped count as written in full.
    assert.deepEqual(collect(driver), [
      { head: heads[0], written: 100 },
      { head: heads[1], written: 200 },
      { head: heads[2], written: 7 },
    ]);
    assert.equal(driver.free, 7);
    device.return([1], heads[3], 9);
    assert.deepEqual(collect(driver), [{ head: heads[3], written: 9 }]);
    assert.equal(driver.free, 8);
  });

  test(`${format}: a driver does not believe that it gets back what it did not give`, {
    timeout: 5000,
  }, (t) => {
    const pair = pairOf(t, packed);
    const head = add(pair, 1);
    pair.driver.publish();
    const device = new BatchingDevice(pair, packed);
    device.return([1], (head + 1) % 8, 0);
    assert.throws(() => pair.driver.take(), DriverRingError);
  });

  test(`${format}: batches of any size, over and over`, { timeout: 20_000 }, () => {
    const script = fc.array(
      fc.oneof(
        fc.record({ add: fc.integer({ min: 1, max: 3 }), room: fc.integer({ min: 1, max: 1000 }) }),
        fc.record({ batch: fc.integer({ min: 1, max: 9 }), written: fc.nat() }),
      ),
      { size: "max", maxLength: 200 },
    );
    fc.assert(
      fc.property(fc.constantFrom(4, 8, 16), script, (size, steps) => {
        const over: (() => void | Promise<void>)[] = [];
        const pair = pairOf({ after: (end) => over.push(end as () => void) }, packed, size);
        const { driver } = pair;
        const device = new BatchingDevice(pair, packed);
        const sent: { head: number; count: number; room: number }[] = [];
        try {
          for (const step of steps) {
            if ("add" in step) {
              const head = add(pair, step.add, step.room);
              if (head < 0) continue;
              if (!packed && sent.length > 0) {
                // The table is used in its own order, over and over.
                const before = sent[sent.length - 1];
                assert.equal(head, (before.head + before.count) % size);
              }
              sent.push({ head, count: step.add, room: step.room });
              driver.publish();
            } else {
              const batch = sent.splice(0, step.batch);
              const last = batch.at(-1);
              if (last === undefined) continue;
              const written = step.written % (last.room + 1);
              device.return(batch.map(({ count }) => count), last.head, written);
              const expected = batch.map(({ head, room }) => ({
                head,
                written: head === last.head ? written : room,
              }));
              assert.deepEqual(collect(driver), expected);
              assert.equal(driver.arm(), false);
            }
          }
        } finally {
          for (const end of over) void end();
        }
      }),
      { seed: 0x5eed, numRuns: 200 },
    );
  });
}

test("split: a batch cannot have more requests than the index has moved", { timeout: 5000 }, (t) => {
  const pair = pairOf(t, false);
  add(pair, 1);
  const second = add(pair, 1);
  pair.driver.publish();
  new BatchingDevice(pair, false).return([1], second, 0);
  assert.throws(() => pair.driver.take(), {
    name: "DriverRingError",
    message: "used element 0 returns 2 requests, but the used index is only 1 ahead",
  });
});
