import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { eventually, sameBytes } from "../session/scene.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { MIB, newImage } from "../support/image.ts";
import { startDisk } from "../support/our_backend.ts";
import { Random } from "../support/random.ts";
import { Writers } from "./writers.ts";

const { RING_PACKED } = ringFeatures;
const { INFLIGHT_SHMFD } = protocolFeatures;

async function outlive(
  scope: Scope,
  random: Random,
  options: { readonly packed: boolean; readonly recorded: boolean; readonly indirect: boolean },
): Promise<void> {
  const { packed, recorded, indirect } = options;
  const image = newImage(scope, MIB);
  let backend = await startDisk(scope, { file: image, args: ["--num-queues=2"] });
  let reconnects = 0;
  const disk = await BlkDriver.connect(backend.socket, {
    numQueues: 2,
    queueSize: 32,
    depth: 12,
    indirect,
    withoutFeatures: packed ? 0n : mask(RING_PACKED),
    withoutProtocolFeatures: recorded ? 0n : mask(INFLIGHT_SHMFD),
    reconnect: {},
  });
  onEnd(scope, () => disk.frontEnd.close());
  disk.frontEnd.onReconnect = () => void reconnects++;
  assert.equal((disk.frontEnd.features & mask(RING_PACKED)) !== 0n, packed);
  const writers = new Writers(disk, 12);
  for (let death = 1; death <= 3; death++) {
    await writers.more(random.int(1, 200));
    assert.ok(writers.pending > 0, "there is something to be lost");
    backend.child.kill("SIGKILL");
    await backend.child.ended;
    assert.equal(disk.frontEnd.connected && reconnects === death, false);
    backend = await startDisk(scope, { file: image, args: ["--num-queues=2"], replaces: backend });
    await writers.more(100);
    // The rings run before the last message is answered.
    await eventually("all was told", () => reconnects === death);
  }
  const expected = await writers.verify();
  await disk.flush();
  sameBytes(readFileSync(image).subarray(0, expected.length), expected, "the image");
  await disk.close();
  await backend.checkUnharmed();
}

for (const packed of [false, true]) {
  for (const recorded of [true, false]) {
    const name = `${packed ? "packed" : "split"} rings, ${
      recorded ? "recorded in flight" : "submitted again"
    }`;
    test(`a disk is killed three times while it is written to, and nothing is lost: ${name}`, {
      timeout: 90_000,
    }, (t) => outlive(t, Random.of(t), { packed, recorded, indirect: packed !== recorded }));
  }
}

test("a back-end may take its time to come back", { timeout: 60_000 }, async (t) => {
  const image = newImage(t, MIB);
  const backend = await startDisk(t, { file: image });
  const disk = await BlkDriver.connect(backend.socket, { reconnect: { longestDelay: 50 } });
  onEnd(t, () => disk.frontEnd.close());
  const writers = new Writers(disk, 4);
  await writers.more(10);
  backend.child.kill("SIGKILL");
  await backend.child.ended;
  await sleep(700);
  assert.equal(disk.frontEnd.connected, false);
  const { done } = writers;
  await startDisk(t, { file: image, replaces: backend });
  await writers.more(50);
  assert.ok(writers.done >= done + 50);
  await writers.verify();
});
