import assert from "node:assert/strict";
import { test } from "node:test";
import { defineDevice } from "../../mod.ts";
import { PACKED_START } from "../../src/virtqueue/packed_layout.ts";
import { type RawPeer, REPLY_ACK } from "./raw_peer.ts";
import { aWhile, LIMIT, Scene, verify } from "./scene.ts";
import { number32, u32, u64 } from "./wire.ts";

const NEEDS_RESET = 0x40n;

async function base(peer: RawPeer, ring: number): Promise<number> {
  return number32(await peer.ask("GET_VRING_BASE", u32(ring, 0)), 4);
}

test("the status is stored as it is set", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const peer = scene.peer();
  await peer.negotiate();
  assert.equal(await peer.number("GET_STATUS"), 0n);
  for (const status of [1n, 3n, 0xbn, 0xfn, 0n]) {
    peer.say("SET_STATUS", u64(status));
    assert.equal(await peer.number("GET_STATUS"), status);
  }
  assert.equal(await peer.ack("SET_STATUS", u64(0x100)), 1n);
  await scene.log.problem(/SET_STATUS: status must be 8 bits, got 0x100$/);
  assert.equal(await peer.number("GET_STATUS"), 0n);
});

test("SET_STATUS 0 keeps features, memory, rings and their positions", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const driver = await scene.driver();
  await driver.write(0, new Uint8Array(512).fill(7));
  await driver.frontEnd.request("SET_STATUS", 0n);
  // QEMU sends it at every pause. Here the rings were not even stopped, and they run on.
  await verify(driver, 1);
  await driver.frontEnd.driverOk();
  await verify(driver, 2);
  assert.deepEqual(scene.log.problems, []);
});

test("RESET_DEVICE forgets features, status and rings, but not the session", LIMIT, async (t) => {
  const peer = (await Scene.disk(t)).peer();
  await peer.negotiate();
  peer.say("SET_VRING_BASE", u32(2, 77));
  peer.say("SET_STATUS", u64(0xf));
  assert.equal(await base(peer, 2), 77);
  // QEMU sends it several times in a row.
  for (let i = 0; i < 3; i++) assert.equal(await peer.ack("RESET_DEVICE"), 0n);
  assert.equal(await peer.number("GET_STATUS"), 0n);
  assert.equal(await base(peer, 2), 0);
  assert.equal(await peer.number("GET_QUEUE_NUM"), 4n, "protocol features are still negotiated");
});

test("RESET_DEVICE resets the device each time, and tells it of new features", LIMIT, async (t) => {
  const said: string[] = [];
  const device = defineDevice({
    type: 4,
    queues: [() => {}],
    negotiated: (features) => said.push(`features ${features.toString(16)}`),
    reset: () => said.push("reset"),
    disconnected: () => said.push("disconnected"),
  });
  const peer = (await Scene.open(t, device)).peer();
  peer.say("SET_PROTOCOL_FEATURES", u64(REPLY_ACK | 1n << 13n));
  peer.say("SET_FEATURES", u64(1n << 32n));
  assert.equal(await peer.ack("RESET_DEVICE"), 0n);
  assert.equal(await peer.ack("RESET_DEVICE"), 0n);
  assert.equal(await peer.ack("SET_FEATURES", u64(1n << 32n | 1n << 29n)), 0n);
  assert.deepEqual(said, ["features 100000000", "reset", "reset", "features 120000000"]);
});

// Most of QEMU's devices, vhost-user-rng-pci among them, tell a reset by nothing else.
test("a ring that begins at its start again tells that the driver has reset the device", LIMIT, async (t) => {
  let resets = 0;
  let accepted: bigint | undefined;
  const device = defineDevice({
    type: 4,
    queues: [(chain) => chain.write(Uint8Array.of(4)), () => {}],
    negotiated: (features) => accepted = features,
    reset: () => {
      resets++;
      accepted = undefined;
    },
  });
  const scene = await Scene.open(t, device);
  const frontEnd = await scene.frontEnd();
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  const room = memory.allocate(16);
  const use = async (): Promise<number> => {
    await frontEnd.request("SET_FEATURES", frontEnd.features);
    const queue = await frontEnd.startQueue(0, memory, { size: 4 });
    assert.equal(await queue.request([], [{ guestAddress: room.guestAddress, length: 16 }]), 1);
    return await frontEnd.stopQueue(queue);
  };
  const paused = await use();
  assert.notEqual(paused, PACKED_START);
  assert.equal(resets, 0, "at first");
  await frontEnd.request("SET_VRING_BASE", { index: 0, num: paused });
  assert.equal(resets, 0, "it goes on where it stood");
  await use();
  assert.equal(resets, 1);
  assert.equal(accepted, frontEnd.features, "features that were accepted before are told again");
  await frontEnd.request("RESET_DEVICE", undefined);
  await use();
  assert.equal(resets, 2, "RESET_DEVICE tells the same");
  assert.deepEqual(scene.log.problems, []);
});

test(
  "after RESET_DEVICE a front-end sets its rings up anew, with the memory it shared before",
  LIMIT,
  async (t) => {
    const scene = await Scene.disk(t);
    const frontEnd = await scene.frontEnd();
    const memory = scene.memory();
    await frontEnd.shareMemory(memory);
    for (let round = 0; round < 3; round++) {
      const queue = await frontEnd.startQueue(0, memory, { size: 8 });
      const header = memory.allocate(16);
      new DataView(header.bytes.buffer, header.bytes.byteOffset).setUint32(0, 8, true);
      const answer = memory.allocate(21);
      assert.equal(
        await queue.request([{ guestAddress: header.guestAddress, length: 16 }], [
          { guestAddress: answer.guestAddress, length: 21 },
        ]),
        21,
      );
      assert.equal(new TextDecoder().decode(answer.bytes.slice(0, 10)), "vhost-user");
      await frontEnd.request("RESET_DEVICE", undefined);
      await frontEnd.resetDevice();
    }
    assert.deepEqual(scene.log.problems, []);
  },
);

test("RESET_DEVICE restores write-back", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const frontEnd = await scene.frontEnd();
  await frontEnd.writeConfig(32, Uint8Array.of(0));
  assert.deepEqual(await frontEnd.readConfig(32, 1), Uint8Array.of(0));
  await frontEnd.request("RESET_DEVICE", undefined);
  assert.deepEqual(await frontEnd.readConfig(32, 1), Uint8Array.of(1));
});

test("RESET_OWNER disables the rings and keeps everything", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const driver = await scene.driver();
  await verify(driver, 1);
  await driver.frontEnd.request("RESET_OWNER", undefined);
  let done = false;
  const late = driver.read(0, 512).then(() => done = true);
  await aWhile();
  assert.equal(done, false, "a disabled ring stands still");
  await driver.frontEnd.request("SET_VRING_ENABLE", { index: 0, num: 1 });
  await late;
  await verify(driver, 2);
});

test("a broken ring sets DEVICE_NEEDS_RESET, which RESET_DEVICE takes away", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const frontEnd = await scene.frontEnd();
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  await frontEnd.driverOk();
  const status = async () => (await frontEnd.request("GET_STATUS", undefined)).value;
  assert.equal(await status(), 0xfn);
  await assert.rejects(
    queue.request([{ guestAddress: 0xdead_0000, length: 16 }], []),
    /the device found ring 0 broken/,
  );
  assert.equal(await status(), 0xfn | NEEDS_RESET);
  await scene.log.problem(/^error: blk: ring 0 is broken .*0xdead0000\+16 is not in guest memory/);
  await frontEnd.request("RESET_DEVICE", undefined);
  assert.equal(await status(), 0n);
});
