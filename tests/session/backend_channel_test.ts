import assert from "node:assert/strict";
import { test } from "node:test";
import { close } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import { BlkDevice, MemoryStorage } from "../../src/devices/blk/mod.ts";
import type { Message } from "../../src/frontend/mod.ts";
import { protocolFeatures } from "../../src/protocol/mod.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { sectorSurvives } from "./requests.ts";
import { RawPeer, REPLY_ACK } from "./raw_peer.ts";
import { aWhile, eventually, LIMIT, Scene, verify } from "./scene.ts";
import { concat, u32, u64 } from "./wire.ts";

const STATUS = 1n << BigInt(protocolFeatures.STATUS);
const MIB = 1 << 20;

/** A disk in memory, and a function that changes its size. */
async function growing(scope: Scope): Promise<{ scene: Scene; resize(size: number): void }> {
  const storage = new MemoryStorage(MIB);
  const disk = new BlkDevice({ storage, shared: true });
  onEnd(scope, () => disk.close());
  const scene = await Scene.open(scope, disk);
  return {
    scene,
    resize: (size) => {
      storage.resize(size);
      disk.resized();
    },
  };
}

test("a disk that grows tells the driver, who reads the new size and uses it", LIMIT, async (t) => {
  const { scene, resize } = await growing(t);
  const driver = await scene.driver();
  let changes = 0;
  driver.frontEnd.onConfigChange = () => changes++;
  assert.equal(driver.size, MIB);
  await assert.rejects(driver.write(MIB, new Uint8Array(512)), /I\/O error/);

  resize(2 * MIB);
  await eventually("the driver is told", () => changes === 1);
  await driver.refresh();
  assert.equal(driver.size, 2 * MIB);
  await driver.write(2 * MIB - 512, new Uint8Array(512).fill(3));
  assert.deepEqual(await driver.read(2 * MIB - 512, 512), new Uint8Array(512).fill(3));

  resize(MIB);
  await eventually("the driver is told", () => changes === 2);
  await assert.rejects(driver.read(MIB, 512), /I\/O error/);
  assert.deepEqual(scene.log.problems, []);
});

test("every front-end is told", LIMIT, async (t) => {
  const { scene, resize } = await growing(t);
  const told = [0, 0, 0];
  for (const i of told.keys()) (await scene.driver()).frontEnd.onConfigChange = () => told[i]++;
  resize(3 * MIB);
  await eventually("all are told", () => told.every((each) => each === 1));
});

test("nothing is sent before a ring runs; then one message stands for all changes", LIMIT, async (t) => {
  const { scene, resize } = await growing(t);
  const frontEnd = await scene.frontEnd();
  let changes = 0;
  frontEnd.onConfigChange = () => changes++;
  resize(2 * MIB);
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  resize(3 * MIB);
  await frontEnd.driverOk();
  await aWhile();
  assert.equal(changes, 0);
  await frontEnd.startQueue(0, memory, { size: 8 });
  await eventually("the driver is told", () => changes === 1);
  await aWhile();
  assert.equal(changes, 1);
});

for (const [title, withoutProtocolFeatures] of [["with", 0n], ["without", STATUS]] as const) {
  // Most of QEMU's devices never set DRIVER_OK: vhost-user-rng-pci, vhost-user-test-device-pci, …
  test(`a driver is told of a change before its first request, ${title} STATUS`, LIMIT, async (t) => {
    const { scene, resize } = await growing(t);
    const frontEnd = await scene.frontEnd({ withoutProtocolFeatures });
    let changes = 0;
    frontEnd.onConfigChange = () => changes++;
    const memory = scene.memory();
    await frontEnd.shareMemory(memory);
    await frontEnd.startQueue(0, memory, { size: 8 });
    resize(2 * MIB);
    await eventually("the driver is told", () => changes === 1);
  });
}

test("while all rings are stopped nothing is sent; afterwards it is", LIMIT, async (t) => {
  const { scene, resize } = await growing(t);
  const frontEnd = await scene.frontEnd();
  let changes = 0;
  frontEnd.onConfigChange = () => changes++;
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  await frontEnd.driverOk();
  await frontEnd.stopQueue(queue);
  resize(2 * MIB);
  await aWhile();
  assert.equal(changes, 0);
  const again = await frontEnd.startQueue(0, memory, { size: 8 });
  assert.ok(await sectorSurvives(again, memory, 0));
  await eventually("the driver is told", () => changes === 1);
});

test("a front-end reads the configuration before it acknowledges, as QEMU does", LIMIT, async (t) => {
  const { scene, resize } = await growing(t);
  let capacity = 0n;
  const driver = await scene.driver({
    channel: {
      CONFIG_CHANGE_MSG: async () => {
        const bytes = await driver.frontEnd.readConfig(0, 57);
        capacity = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
      },
    },
  });
  for (const size of [2 * MIB, 5 * MIB]) {
    resize(size);
    await eventually("the front-end knows", () => capacity === BigInt(size / 512));
  }
  await verify(driver, 1);
  assert.deepEqual(scene.log.problems, []);
});

test("a front-end that refuses the message is heard, and served on", LIMIT, async (t) => {
  const { scene, resize } = await growing(t);
  const driver = await scene.driver({
    channel: {
      CONFIG_CHANGE_MSG: () => {
        throw new Error("no");
      },
    },
  });
  resize(2 * MIB);
  await scene.log.problem(/^warning: .*CONFIG_CHANGE_MSG: the peer answered failure \(1\)$/);
  await verify(driver, 1);
});

for (const [title, replyAck, flags] of [["with", true, 0x9], ["without", false, 0x1]] as const) {
  test(`${title} REPLY_ACK the message is 12 bytes with flags ${flags}`, LIMIT, async (t) => {
    const { scene, resize } = await growing(t);
    const [ours, theirs] = socketPair();
    const channel = RawPeer.on(ours);
    onEnd(t, () => channel.close());
    const frontEnd = await scene.frontEnd({ withoutProtocolFeatures: replyAck ? 0n : REPLY_ACK });
    await frontEnd.request("SET_BACKEND_REQ_FD", undefined, [theirs]);
    close(theirs);
    const memory = scene.memory();
    await frontEnd.shareMemory(memory);
    await frontEnd.startQueue(0, memory, { size: 8 });
    await frontEnd.driverOk();
    for (const size of [2, 3]) {
      resize(size * MIB);
      const { header, fds } = await channel.next() as Message;
      assert.deepEqual([header.request, header.flags, header.size, fds.length], [2, flags, 0, 0]);
      if (replyAck) channel.bytes(concat(u32(2, 0x5, 8), u64(0)));
    }
    await frontEnd.request("GET_FEATURES", undefined);
    assert.deepEqual(scene.log.problems, []);
  });
}

test("a new channel replaces the old one", LIMIT, async (t) => {
  const { scene, resize } = await growing(t);
  const driver = await scene.driver();
  let changes = 0;
  driver.frontEnd.onConfigChange = () => changes++;
  const [ours, theirs] = socketPair();
  const channel = RawPeer.on(ours);
  onEnd(t, () => channel.close());
  await driver.frontEnd.request("SET_BACKEND_REQ_FD", undefined, [theirs]);
  close(theirs);
  resize(2 * MIB);
  const { header } = await channel.next() as Message;
  assert.equal(header.request, 2);
  await aWhile();
  assert.equal(changes, 0);
});

test("a channel is closed when another takes its place, and with its session", LIMIT, async (t) => {
  const { scene } = await growing(t);
  const frontEnd = await scene.frontEnd();
  const channels: RawPeer[] = [];
  for (let i = 0; i < 2; i++) {
    const [ours, theirs] = socketPair();
    const channel = RawPeer.on(ours);
    onEnd(t, () => channel.close());
    channels.push(channel);
    await frontEnd.request("SET_BACKEND_REQ_FD", undefined, [theirs]);
    close(theirs);
  }
  await channels[0].end();
  frontEnd.close();
  await channels[1].end();
  assert.deepEqual(scene.log.problems, []);
});

test("a channel that closes or talks nonsense is given up; the session goes on", LIMIT, async (t) => {
  const { scene, resize } = await growing(t);
  const driver = await scene.driver();
  for (
    const nonsense of [undefined, concat(u32(2, 0x5, 8), u64(0)), u32(2, 0x2, 0), u32(9, 0x5, 0xffff_ffff)]
  ) {
    const [ours, theirs] = socketPair();
    const channel = RawPeer.on(ours);
    await driver.frontEnd.request("SET_BACKEND_REQ_FD", undefined, [theirs]);
    close(theirs);
    if (nonsense !== undefined) {
      channel.bytes(nonsense);
      await scene.log.problem(/^warning: .*the back-end channel is closed: ProtocolError: /);
      await channel.end();
    }
    channel.close();
    // Whoever answers this has seen what was there before.
    await driver.frontEnd.request("GET_FEATURES", undefined);
    await aWhile();
    resize(2 * MIB);
    await scene.log.problem(/^warning: .*CONFIG_CHANGE_MSG: the connection is closed$/);
    await verify(driver, 1);
  }
});
