import assert from "node:assert/strict";
import { test } from "node:test";
import { SplitDriverRing } from "../../src/frontend/mod.ts";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { eventually, LIMIT, Scene } from "../session/scene.ts";
import { echoDevice } from "./echo.ts";

const INBAND = mask(protocolFeatures.INBAND_NOTIFICATIONS);

test("a ring without descriptors is kicked, and calls, by messages", LIMIT, async (t) => {
  const scene = await Scene.open(t, echoDevice(), { inBandNotifications: true });
  const calls: number[] = [];
  const errors: number[] = [];
  const frontEnd = await scene.frontEnd({
    protocolFeatures: INBAND,
    withoutFeatures: mask(ringFeatures.RING_PACKED),
    channel: {
      VRING_CALL: ({ index }) => void calls.push(index),
      VRING_ERR: ({ index }) => void errors.push(index),
    },
  });
  assert.ok(frontEnd.negotiated("INBAND_NOTIFICATIONS"));
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  const ring = new SplitDriverRing(memory, { size: 4, eventIdx: true });
  ring.arm();
  await frontEnd.request("SET_VRING_NUM", { index: 0, num: 4 });
  await frontEnd.request("SET_VRING_ADDR", {
    index: 0,
    flags: 0,
    descriptor: ring.descriptor.userAddress,
    used: ring.used.userAddress,
    available: ring.available.userAddress,
    log: 0n,
  });
  await frontEnd.request("SET_VRING_ENABLE", { index: 0, num: 1 });
  await frontEnd.driverOk();

  const piece = memory.allocate(8);
  piece.bytes.fill(4, 0, 4);
  const { guestAddress } = piece;
  const head = ring.add([{ guestAddress, length: 4 }], [{ guestAddress: guestAddress + 4, length: 4 }]);
  ring.publish();
  await frontEnd.request("VRING_KICK", { index: 0, num: 0 });
  await eventually("the call", () => calls.length > 0);
  assert.deepEqual(ring.take(), { head, written: 4 });
  assert.deepEqual([...piece.bytes], new Array(8).fill(4));

  // A descriptor that is not in memory breaks the ring; that is told in band as well.
  ring.add([{ guestAddress: 0x7000_0000, length: 4 }], []);
  ring.publish();
  await frontEnd.request("VRING_KICK", { index: 0, num: 0 });
  await eventually("the error", () => errors.length > 0);
  await scene.log.problem(/ring 0 is broken.*not in guest memory/);
  // Behind that, the device has the answers to its messages.
  await frontEnd.request("GET_FEATURES", undefined);
});

test("it is not offered unless asked for: QEMU would take it without having it", LIMIT, async (t) => {
  const scene = await Scene.open(t, echoDevice());
  const frontEnd = await scene.frontEnd({ protocolFeatures: INBAND });
  assert.equal(frontEnd.negotiated("INBAND_NOTIFICATIONS"), false);
});
