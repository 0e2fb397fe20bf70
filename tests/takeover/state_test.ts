import assert from "node:assert/strict";
import { test } from "node:test";
import { defineDevice, type Device } from "../../mod.ts";
import { blkConfig } from "../../src/devices/blk/layout.ts";
import { FrontEnd, type FrontEndOptions, SharedMemory } from "../../src/frontend/mod.ts";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { echoDevice } from "../features/echo.ts";
import { echo } from "../frontend/stand.ts";
import { concat, u32, u64 } from "../session/wire.ts";
import { messageBytes, NEED_REPLY, RawPeer } from "../session/raw_peer.ts";
import { eventually, verify } from "../session/scene.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { descriptors, noneLost, Stand } from "./stand.ts";

// What a front-end has said once, and does not say again to the next process.

const LIMIT = { timeout: 30_000 };

const stateless = (): Device => echoDevice({ stateless: true });

async function frontEndOf(scope: Scope, stand: Stand, options: FrontEndOptions = {}): Promise<FrontEnd> {
  const frontEnd = await FrontEnd.connect(stand.path, options);
  onEnd(scope, () => frontEnd.close());
  return frontEnd;
}

function memoryOf(scope: Scope, byteLength = 1 << 16, guestAddress = 0x1000_0000): SharedMemory {
  const memory = new SharedMemory(byteLength, guestAddress);
  onEnd(scope, () => memory.close());
  return memory;
}

test("every byte of a message can be the last that the older server has read", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.serve(stateless());
  const peer = RawPeer.connect(stand.path);
  onEnd(t, () => peer.close());
  await peer.negotiate();
  const memory = memoryOf(t);
  const payload = concat(u32(1, 0), u64(0x1000_0000, 1 << 16, 0x7000_0000, 0));
  const message = messageBytes("SET_MEM_TABLE", payload, NEED_REPLY);
  const before = descriptors();
  for (const length of [1, 11, 12, 13, message.length - 1]) {
    peer.bytes(message.subarray(0, length), [memory.fd]);
    await stand.serve(stateless(), { takeover: "take" });
    peer.bytes(message.subarray(length));
    assert.deepEqual(await peer.answer("SET_MEM_TABLE"), u64(0), `${length} bytes`);
  }
  // The region, for the journal of the one that serves; and what tells of guest memory that is lost, while there is any.
  await noneLost(before, ["/memfd:vhost-user-guest (deleted)", "anon_inode:[eventfd]"]);
  assert.deepEqual(stand.log.problems, []);
});

test("a log of writes goes on", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.serve(stateless());
  const frontEnd = await frontEndOf(t, stand, {
    deviceFeatures: mask(ringFeatures.LOG_ALL),
    protocolFeatures: mask(protocolFeatures.LOG_SHMFD),
  });
  const memory = memoryOf(t);
  await frontEnd.shareMemory(memory);
  const file = memoryOf(t, 16384, 0);
  const log = file.allocate(16384).bytes;
  (await frontEnd.request("SET_LOG_BASE", { size: 16384n, offset: 0n }, [file.fd])).fds.close();
  const queue = await frontEnd.startQueue(0, memory, { size: 4 });
  await frontEnd.driverOk();
  await echo(queue, memory, 1);
  assert.ok(log.some((byte) => byte !== 0));
  log.fill(0);
  await stand.serve(stateless(), { takeover: "take" });
  await echo(queue, memory, 2);
  assert.ok(log.some((byte) => byte !== 0), "the next process marks what it writes");
});

test("as many regions as there may be", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.serve(stateless());
  const frontEnd = await frontEndOf(t, stand);
  const regions = Array.from({ length: 100 }, (_, i) => memoryOf(t, 4096, 0x1000_0000 + 0x10_0000 * i));
  for (const each of regions) await frontEnd.shareMemory(each);
  await frontEnd.unshareMemory(regions[50]);
  const memory = memoryOf(t, 1 << 16, 0x4000_0000);
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 4 });
  await frontEnd.driverOk();
  await stand.serve(stateless(), { takeover: "take" });
  // The answer goes into the last region that was shared.
  const room = regions[99].allocate(8);
  const sent = memory.allocate(8);
  sent.bytes.fill(9);
  assert.equal(await queue.request([{ ...sent, length: 8 }], [{ ...room, length: 8 }]), 8);
  assert.deepEqual([...room.bytes], [...sent.bytes]);
  await assert.rejects(frontEnd.shareMemory(memoryOf(t, 4096, 0x4000_0000)), /ADD_MEM_REG/);
});

for (const packed of [false, true]) {
  test(
    `rings are stopped, started and reset by the next process: ${packed ? "packed" : "split"}`,
    LIMIT,
    async (t) => {
      const stand = new Stand(t);
      let server = await stand.serve(stateless());
      const next = async (): Promise<void> => {
        const before = server;
        server = await stand.serve(stateless(), { takeover: "take" });
        await before.finished;
      };
      const frontEnd = await frontEndOf(t, stand, {
        deviceFeatures: packed ? mask(ringFeatures.RING_PACKED) : 0n,
        withoutFeatures: packed ? 0n : mask(ringFeatures.RING_PACKED),
      });
      const memory = memoryOf(t);
      await frontEnd.shareMemory(memory);
      const queue = await frontEnd.startQueue(0, memory, { size: 4 });
      await frontEnd.driverOk();
      for (let i = 0; i < 7; i++) await echo(queue, memory, i);
      await next();
      for (let i = 0; i < 7; i++) await echo(queue, memory, i);
      // Stopped by one, started by the next: in between nothing of it is touched.
      await frontEnd.stopQueue(queue);
      await next();
      const again = await frontEnd.startQueue(0, memory, { size: 4 });
      for (let i = 0; i < 7; i++) await echo(again, memory, i);
      await frontEnd.request("SET_VRING_ENABLE", { index: 0, num: 0 });
      await next();
      const waiting = echo(again, memory, 1);
      let done = false;
      void waiting.then(() => done = true);
      await frontEnd.request("GET_QUEUE_NUM", undefined);
      assert.equal(done, false, "a ring that is disabled stays so");
      await frontEnd.request("SET_VRING_ENABLE", { index: 0, num: 1 });
      await waiting;
      await frontEnd.resetDevice();
      await next();
      assert.equal((await frontEnd.request("GET_STATUS", undefined)).value, 11n);
      assert.deepEqual(stand.log.problems, []);
    },
  );
}

test("all front-ends go along", LIMIT, async (t) => {
  const stand = new Stand(t);
  const first = await stand.disk({ shared: true });
  const drivers: BlkDriver[] = [];
  for (let i = 0; i < 5; i++) {
    const driver = await BlkDriver.connect(stand.path);
    onEnd(t, () => driver.frontEnd.close());
    drivers.push(driver);
  }
  const second = await stand.disk({ shared: true }, { takeover: "take" });
  await first.finished;
  assert.equal(second.takenOver?.sessions, 5);
  for (const [i, driver] of drivers.entries()) await verify(driver, i);
  for (const driver of drivers) await driver.close();
  await eventually("all have left", () => second.sessions === 0);
});

test("what the driver has written to the configuration space is kept", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.disk();
  const driver = await BlkDriver.connect(stand.path);
  onEnd(t, () => driver.frontEnd.close());
  const { writeback } = blkConfig.offsets;
  await driver.frontEnd.writeConfig(writeback, new Uint8Array([0]));
  await stand.disk({}, { takeover: "take" });
  assert.deepEqual([...await driver.frontEnd.readConfig(writeback, 1)], [0]);
  await verify(driver, 3);
});

test("a device's state goes along", LIMIT, async (t) => {
  const counters = (start: number): Device => {
    let count = start;
    return defineDevice({
      type: 63,
      queues: [(chain) => chain.write(new Uint8Array(8).fill(++count))],
      state: {
        save: () => new Uint8Array(10_000).fill(count),
        load: (state) => void (count = state[9999]),
      },
    });
  };
  const stand = new Stand(t);
  await stand.serve(counters(0));
  const frontEnd = await frontEndOf(t, stand);
  const memory = memoryOf(t);
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 4 });
  await frontEnd.driverOk();
  const count = async (): Promise<number> => {
    const { guestAddress, bytes } = memory.allocate(8);
    await queue.request([], [{ guestAddress, length: 8 }]);
    return bytes[0];
  };
  assert.deepEqual([await count(), await count()], [1, 2]);
  await stand.serve(counters(100), { takeover: "take" });
  assert.deepEqual([await count(), await count()], [3, 4]);
});
