import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { Chain } from "../../src/virtqueue/chain.ts";
import type { Ring } from "../../src/virtqueue/ring.ts";
import { type Pair, ringPair } from "./ring_pair.ts";

// A device that stops makes available again what it has taken and not returned.

const LIMIT = { timeout: 20_000 };

/** Adds a request of some descriptors, whose one byte to read is its number. */
function add({ driver, data }: Pair, number: number, count: number): boolean {
  data.bytes[number % 256] = number;
  const buffer = { guestAddress: data.guestAddress + number % 256, length: 1 };
  const rest = new Array(count - 1).fill({ guestAddress: data.guestAddress + 1024, length: 1 });
  return driver.add([buffer, ...rest], [{ guestAddress: data.guestAddress + 2048, length: 8 }]) >= 0;
}

function numberOf(chain: Chain): number {
  return chain.readable.getUint8(0);
}

for (const packed of [false, true]) {
  for (const inOrder of [false, true]) {
    for (const recorded of [false, true]) {
      const name = `${packed ? "packed" : "split"}${inOrder ? ", IN_ORDER" : ""}${
        recorded ? ", recorded" : ""
      }`;
      test(`nothing is lost and nothing comes twice over any number of rewinds: ${name}`, LIMIT, () => {
        const step = fc.record({
          add: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 6 }),
          take: fc.nat(8),
          return: fc.nat(8),
          rewind: fc.boolean(),
          another: fc.boolean(),
        });
        fc.assert(
          fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
            const ends: (() => void | Promise<void>)[] = [];
            const pair = ringPair({ after: (end: () => void) => void ends.push(end) } as never, {
              size: 16,
              packed,
              inOrder,
              recorded,
              eventIdx: true,
            });
            try {
              let device: Ring = pair.device;
              let added = 0;
              let returned = 0;
              let collected = 0;
              const held: Chain[] = [];
              for (const each of steps) {
                for (const count of each.add) if (add(pair, added, count)) added++;
                pair.driver.publish();
                for (let i = 0; i < each.take; i++) {
                  const chain = device.pop();
                  if (chain === null) break;
                  assert.equal(numberOf(chain), (returned + held.length) % 256, "the next in turn");
                  held.push(chain);
                }
                for (const chain of held.splice(0, each.return)) {
                  chain.written = 1;
                  device.push(chain);
                  returned++;
                }
                if (each.rewind) {
                  device.publish();
                  assert.deepEqual(new Set(device.taken()), new Set(held));
                  assert.equal(device.rewind(), true);
                  assert.equal(device.inFlight, 0);
                  assert.deepEqual(device.taken(), []);
                  held.length = 0;
                  // Also for a device that goes by the position, or by the record.
                  if (each.another) device = pair.another({ base: device.base });
                }
                device.publish();
                while (pair.driver.take() !== null) collected++;
                assert.equal(collected, returned);
              }
              for (let chain = device.pop(); chain !== null; chain = device.pop()) held.push(chain);
              assert.equal(returned + held.length, added);
            } finally {
              for (const end of ends) void end();
            }
          }),
          { numRuns: 60 },
        );
      });
    }
  }
}

for (const packed of [false, true]) {
  test(
    `requests of a device that died cannot be made available again: ${packed ? "packed" : "split"}`,
    LIMIT,
    (t) => {
      const pair = ringPair(t, { size: 16, packed, recorded: true, eventIdx: false });
      for (let i = 0; i < 3; i++) add(pair, i, 2);
      pair.driver.publish();
      pair.device.pop();
      pair.device.pop();
      const next = pair.another();
      assert.equal(numberOf(next.pop() as Chain), 0);
      assert.equal(next.rewind(), false);
      assert.equal(next.inFlight, 1);
      // But what comes after them can.
      const again = next.pop() as Chain;
      assert.equal(numberOf(again), 1);
      const [first] = next.taken().filter((chain) => chain !== again);
      next.push(first);
      next.push(again);
      next.publish();
      assert.equal(numberOf(next.pop() as Chain), 2);
      assert.equal(next.rewind(), true);
      assert.equal(numberOf(next.pop() as Chain), 2);
    },
  );
}
