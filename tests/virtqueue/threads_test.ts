import assert from "node:assert/strict";
import test from "node:test";
import { GuestMemory } from "../../src/memory/guest_memory.ts";
import type { Chain } from "../../src/virtqueue/chain.ts";
import { PACKED_START } from "../../src/virtqueue/packed_layout.ts";
import { PackedRing } from "../../src/virtqueue/packed_ring.ts";
import type { Ring } from "../../src/virtqueue/ring.ts";
import { SplitRing } from "../../src/virtqueue/split_ring.ts";
import { onEnd } from "../support/cleanup.ts";
import { Random } from "../support/random.ts";
import { TestThread } from "../support/thread.ts";
import { answerTo, Bell, type DriverPlace, type DriverTask, PATIENCE } from "./two_threads.ts";

// Driver and device on threads of their own: what one writes reaches the other in order, and nobody sleeps for ever.

/** A device that answers until the driver is done, some requests later than others. */
function serve(ring: Ring, bells: Int32Array, random: Random): void {
  const held: Chain[] = [];
  while (Atomics.load(bells, Bell.DONE) === 0) {
    const kicks = Atomics.load(bells, Bell.KICK);
    let some = false;
    for (let chain = ring.pop(); chain !== null; chain = ring.pop()) {
      const question = chain.readable.getUint32(0);
      assert.equal(chain.readable.getUint32(4), ~question >>> 0, "the question is whole");
      const answer = new Uint8Array(8);
      new DataView(answer.buffer).setUint32(0, answerTo(question), true);
      chain.write(answer);
      held.push(chain);
      some = true;
      if (random.int(0, 3) === 0) break;
    }
    while (held.length > (some ? random.int(0, 3) : 0)) {
      const [chain] = held.splice(random.int(0, held.length - 1), 1);
      ring.push(chain);
    }
    if (ring.publish()) {
      Atomics.add(bells, Bell.CALL, 1);
      Atomics.notify(bells, Bell.CALL);
    }
    if (some || ring.arm()) continue;
    assert.notEqual(Atomics.wait(bells, Bell.KICK, kicks, PATIENCE), "timed-out", "a kick was lost");
    ring.suppress();
  }
}

for (const packed of [false, true]) {
  for (const eventIdx of [false, true]) {
    for (
      const [how, tableSize, inOrder] of [["in the ring", 0, false], [
        "in tables, in order",
        4,
        true,
      ]] as const
    ) {
      const name = `${packed ? "packed" : "split"}, ${how}, event_idx ${eventIdx}`;
      test(`two threads: ${name}`, { timeout: 60_000 }, async (t) => {
        const size = packed ? 13 : 16;
        const bells = new SharedArrayBuffer(16);
        const task: DriverTask = { packed, size, eventIdx, inOrder, tableSize, count: 100_000, bells };
        const driver = new TestThread(new URL("./driver_thread.ts", import.meta.url));
        onEnd(t, () => driver.end());
        driver.post(task);
        const place = await driver.next() as DriverPlace;
        const memory = new GuestMemory();
        onEnd(t, () => memory.clear());
        const { fd, byteLength, guestAddress } = place;
        memory.replace([{ fd, guestAddress, size: byteLength, userAddress: guestAddress, mmapOffset: 0 }]);
        const [region] = memory.regions;
        const part = (at: number) => ({ region, offset: at - guestAddress });
        const Format = packed ? PackedRing : SplitRing;
        const ring = new Format(memory, size, {
          descriptor: part(place.descriptor),
          available: part(place.available),
          used: part(place.used),
        }, { eventIdx, inOrder, indirect: tableSize > 0, base: packed ? PACKED_START : 0 });
        serve(ring, new Int32Array(bells), new Random(9));
        assert.equal(await driver.next(), "", "what the driver says at the end");
      });
    }
  }
}
