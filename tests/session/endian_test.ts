import assert from "node:assert/strict";
import { test } from "node:test";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { echoDevice } from "../features/echo.ts";
import type { RawPeer } from "./raw_peer.ts";
import { eventually, LIMIT, Scene, verify } from "./scene.ts";
import { u32, u64 } from "./wire.ts";

const VERSION_1 = mask(ringFeatures.VERSION_1);
const RING_PACKED = mask(ringFeatures.RING_PACKED);
const CROSS_ENDIAN = mask(protocolFeatures.CROSS_ENDIAN);
/** REPLY_ACK, RESET_DEVICE and CROSS_ENDIAN. */
const PROTOCOL = 0x2008n | CROSS_ENDIAN;

const endian = (peer: RawPeer, index: number, num: number): Promise<bigint> =>
  peer.ack("SET_VRING_ENDIAN", u32(index, num));

test("the byte order of a legacy ring can be chosen while it is stopped", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const peer = scene.peer();
  await peer.negotiate(PROTOCOL, VERSION_1 | RING_PACKED);
  for (const num of [0, 1, 1, 0]) assert.equal(await endian(peer, 0, num), 0n);
  for (
    const [index, num, complaint] of [
      [0, 2, /SET_VRING_ENDIAN: num must be 0 \(little-endian\) or 1 \(big-endian\), got 2/],
      [9, 1, /SET_VRING_ENDIAN: ring must be 0 to 3, got 9/],
    ] as const
  ) {
    assert.equal(await endian(peer, index, num), 1n);
    await scene.log.problem(complaint);
  }
  peer.say("SET_VRING_KICK", u64(0x100n));
  assert.equal(await endian(peer, 0, 1), 1n);
  await scene.log.problem(/SET_VRING_ENDIAN: ring 0 must be stopped/);
});

for (const [feature, wanted] of [["VERSION_1", VERSION_1], ["RING_PACKED", RING_PACKED]] as const) {
  test(`with ${feature} a ring is little-endian`, LIMIT, async (t) => {
    const scene = await Scene.disk(t);
    const peer = scene.peer();
    const others = (VERSION_1 | RING_PACKED) & ~wanted;
    await peer.negotiate(PROTOCOL, others, ~0n);
    assert.equal(await endian(peer, 0, 0), 0n);
    assert.equal(await endian(peer, 0, 1), 1n);
    await scene.log.problem(new RegExp(`ring 0 must be little-endian, as ${feature} was accepted`));
  });
}

test("a byte order from before the features does not get past them", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const peer = scene.peer();
  await peer.negotiate(PROTOCOL, VERSION_1 | RING_PACKED);
  assert.equal(await endian(peer, 0, 1), 0n);
  peer.say("SET_FEATURES", u64(VERSION_1 | mask(ringFeatures.PROTOCOL_FEATURES)));
  peer.say("SET_VRING_NUM", u32(0, 8));
  peer.say("SET_VRING_ADDR", new Uint8Array(40));
  peer.say("SET_VRING_KICK", u64(0x100n));
  assert.equal(await peer.ack("SET_VRING_ENABLE", u32(0, 1)), 1n);
  await scene.log.problem(
    /SET_VRING_ENABLE: ring 0 must be little-endian, as VERSION_1 was accepted/,
  );
});

test("CROSS_ENDIAN is offered by devices that say they can, and needed", LIMIT, async (t) => {
  const plain = await Scene.open(t, echoDevice());
  const able = await Scene.open(t, echoDevice({ crossEndian: true }));
  const [without, with_] = [plain.peer(), able.peer()];
  assert.equal(await without.number("GET_PROTOCOL_FEATURES") & CROSS_ENDIAN, 0n);
  assert.equal(await with_.number("GET_PROTOCOL_FEATURES") & CROSS_ENDIAN, CROSS_ENDIAN);
  await with_.negotiate(PROTOCOL & ~CROSS_ENDIAN, VERSION_1 | RING_PACKED);
  assert.equal(await endian(with_, 0, 1), 1n);
  await able.log.problem(/SET_VRING_ENDIAN: protocol feature CROSS_ENDIAN was not negotiated/);
  await assert.rejects(plain.frontEnd({ endianness: "big" }), /must offer CROSS_ENDIAN/);
});

for (
  const [how, options] of [
    ["", {}],
    [" with indirect tables", { indirect: true }],
    [" without EVENT_IDX", { withoutFeatures: mask(ringFeatures.EVENT_IDX) }],
    [" in order, with four queues", { deviceFeatures: mask(ringFeatures.IN_ORDER, 12), numQueues: 4 }],
  ] as const
) {
  test(`a big-endian driver uses a disk${how}`, LIMIT, async (t) => {
    const scene = await Scene.disk(t, { id: "turned around" });
    const driver = await scene.driver({ endianness: "big", ...options });
    assert.equal(driver.frontEnd.features & (VERSION_1 | RING_PACKED), 0n);
    assert.equal(driver.size, 1 << 20, "the configuration space is big-endian too");
    await verify(driver, 1);
    await driver.writeZeroes(0, 512);
    assert.deepEqual(await driver.read(0, 512), new Uint8Array(512));
    await driver.flush();
    assert.equal(await driver.id(), "turned around");
    await assert.rejects(driver.read(1 << 20, 512), /I\/O error/);
    assert.deepEqual(scene.log.problems, []);
  });
}

for (const [who, withoutFeatures, status] of [["a legacy", VERSION_1, 0], ["a modern", 0n, 2]] as const) {
  test(`what BARRIER means to ${who} driver that was not offered it`, LIMIT, async (t) => {
    const scene = await Scene.disk(t);
    const frontEnd = await scene.frontEnd({ withoutFeatures: withoutFeatures | RING_PACKED });
    const memory = scene.memory();
    await frontEnd.shareMemory(memory);
    const queue = await frontEnd.startQueue(0, memory, { size: 8 });
    const [header, answer] = [memory.allocate(16), memory.allocate(513)];
    // IN with the flag: SLOF, the firmware of QEMU's pseries machines, sets it always.
    header.bytes.set([0, 0, 0, 0x80]);
    await queue.request(
      [{ guestAddress: header.guestAddress, length: 16 }],
      [{ guestAddress: answer.guestAddress, length: 513 }],
    );
    assert.equal(answer.bytes[512], status);
  });
}

test("drivers of both byte orders use a disk at once", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const [big, little] = [await scene.driver({ endianness: "big" }), await scene.driver()];
  await verify(big, 1);
  await verify(little, 2);
  await verify(big, 3);
  assert.deepEqual(scene.log.problems, []);
});

test(
  "the configuration space turns around with the first ring, and the front-end is told",
  LIMIT,
  async (t) => {
    const scene = await Scene.disk(t);
    let changes = 0;
    const frontEnd = await scene.frontEnd({ endianness: "big" });
    frontEnd.onConfigChange = () => changes++;
    const capacity = async (): Promise<number> => {
      const bytes = await frontEnd.readConfig(0, 8);
      return Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0));
    };
    assert.notEqual(await capacity(), 2048);
    const memory = scene.memory();
    await frontEnd.shareMemory(memory);
    await frontEnd.startQueue(0, memory, { size: 8 });
    assert.equal(await capacity(), 2048);
    await eventually("the front-end is told", () => changes > 0);
    assert.equal(changes, 1);
    await frontEnd.request("RESET_DEVICE", undefined);
    assert.notEqual(await capacity(), 2048, "what comes after a reset may be another driver");
  },
);
