import assert from "node:assert/strict";
import { test } from "node:test";
import { mask, protocolFeatures, type RingFeature, ringFeatures } from "../../src/protocol/mod.ts";
import { bytesOf, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import { echoDevice } from "./echo.ts";

// Features of rings from negotiation to completed requests, between our own two sides.

for (const [format, without] of [["split", ["RING_PACKED"]], ["packed", []]] as const) {
  const withoutFeatures = mask(...without.map((name: RingFeature) => ringFeatures[name]));

  test(`a ${format} ring that returns requests in order`, LIMIT, async (t) => {
    const scene = await Scene.disk(t);
    const driver = await scene.driver({ deviceFeatures: mask(ringFeatures.IN_ORDER), withoutFeatures });
    assert.ok(driver.frontEnd.features & mask(ringFeatures.IN_ORDER));
    const blocks = Array.from({ length: 64 }, (_, i) => bytesOf(i, 4096));
    await Promise.all(blocks.map((block, i) => driver.write(i * 4096, block)));
    const back = await Promise.all(blocks.map((_, i) => driver.read(i * 4096, 4096)));
    back.forEach((block, i) => sameBytes(block, blocks[i], `block ${i}`));
  });

  test(`what a device writes is in the log of a ${format} ring, and nothing else`, LIMIT, async (t) => {
    const scene = await Scene.open(t, echoDevice());
    const frontEnd = await scene.frontEnd({
      deviceFeatures: mask(ringFeatures.LOG_ALL),
      protocolFeatures: mask(protocolFeatures.LOG_SHMFD),
      withoutFeatures,
    });
    const memory = scene.memory();
    await frontEnd.shareMemory(memory);
    const file = scene.memory(16384);
    const log = file.allocate(16384).bytes;
    const answer = await frontEnd.request("SET_LOG_BASE", { size: 16384n, offset: 0n }, [file.fd]);
    answer.fds.close();
    const queue = await frontEnd.startQueue(0, memory, { size: 4 });
    await frontEnd.driverOk();
    const [sent, room] = [memory.allocate(4096, 4096), memory.allocate(4096, 4096)];
    sent.bytes.fill(7);
    const request = (): Promise<number> =>
      queue.request([{ guestAddress: sent.guestAddress, length: 8 }], [
        { guestAddress: room.guestAddress, length: 8 },
      ]);
    const marked = (): number[] =>
      [...log].flatMap((byte, at) =>
        [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => byte >> bit & 1).map((bit) => at * 8 + bit)
      );
    assert.deepEqual(marked(), []);
    assert.equal(await request(), 8);
    assert.deepEqual(marked(), [room.guestAddress / 4096]);

    log.fill(0);
    await frontEnd.request("SET_FEATURES", frontEnd.features & ~mask(ringFeatures.LOG_ALL));
    assert.equal(await request(), 8);
    assert.deepEqual(marked(), [], "logging is off");
  });

  test(`a ${format} ring with a buffer for what is in flight`, LIMIT, async (t) => {
    const scene = await Scene.open(t, echoDevice());
    const { GET_VRING_BASE_INFLIGHT } = protocolFeatures;
    const frontEnd = await scene.frontEnd({
      protocolFeatures: mask(GET_VRING_BASE_INFLIGHT),
      withoutFeatures,
    });
    const memory = scene.memory();
    await frontEnd.shareMemory(memory);
    assert.ok(await frontEnd.recordInflight(1, 4));
    const queue = await frontEnd.startQueue(0, memory, { size: 4 });
    await frontEnd.driverOk();
    const piece = memory.allocate(16);
    for (let i = 0; i < 6; i++) {
      const { guestAddress } = piece;
      await queue.request([{ guestAddress, length: 8 }], [{ guestAddress: guestAddress + 8, length: 8 }]);
    }
    const before = queue.ring.base;
    assert.equal(await frontEnd.stopQueue(queue), before);
  });
}
