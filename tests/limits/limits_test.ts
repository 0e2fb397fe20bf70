import assert from "node:assert/strict";
import { performance } from "node:perf_hooks";
import { test } from "node:test";
import { defaultLimits, defineDevice, type Device, limitsOf, limitTable } from "../../mod.ts";
import { close } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import { Iotlb } from "../../src/memory/iotlb.ts";
import { frameState } from "../../src/backend/device_state.ts";
import { GuestMemory } from "../../src/memory/guest_memory.ts";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { GatedStorage } from "../session/gated_storage.ts";
import { RawPeer } from "../session/raw_peer.ts";
import { eventually, LIMIT, Scene, verify } from "../session/scene.ts";
import { u64 } from "../session/wire.ts";
import { onEnd } from "../support/cleanup.ts";
import { checkGenerated, table } from "../support/generated.ts";

// Each bound: what is at it works, what is above is refused and named. `sessions` is tried in serve_test.ts.

const GUEST = 0x1000_0000;

/** Answers a request that was refused, by what the log says of it. */
async function refused(scene: Scene, request: Promise<unknown>, reason: RegExp): Promise<void> {
  await assert.rejects(request);
  await scene.log.problem(reason);
}

test("regions", LIMIT, async (t) => {
  const scene = await Scene.disk(t, {}, { limits: { regions: 3 } });
  const frontEnd = await scene.frontEnd();
  assert.equal((await frontEnd.request("GET_MAX_MEM_SLOTS", undefined)).value, 3n);
  const add = (n: number): Promise<unknown> => {
    const size = 4096n;
    const address = BigInt(GUEST + n * 4096);
    const region = { guestAddress: address, userAddress: address, size, mmapOffset: 0n };
    return frontEnd.request("ADD_MEM_REG", region, [scene.memory().fd]);
  };
  for (let n = 0; n < 3; n++) await add(n);
  await refused(scene, add(3), /ADD_MEM_REG: number of regions must be at most 3 \(limit regions\), got 4/);
});

test("memory, with the log and the in-flight buffer", LIMIT, async (t) => {
  const scene = await Scene.disk(t, {}, { limits: { memory: 1 << 17 } });
  const frontEnd = await scene.frontEnd({
    deviceFeatures: mask(ringFeatures.LOG_ALL),
    protocolFeatures: mask(protocolFeatures.LOG_SHMFD),
  });
  await frontEnd.shareMemory(scene.memory(1 << 16, GUEST));
  const second = scene.memory(1 << 16, GUEST * 2);
  await frontEnd.shareMemory(second);
  await refused(
    scene,
    frontEnd.shareMemory(scene.memory(4096, GUEST * 3)),
    /guest memory must be at most 131072 bytes \(limit memory\), got 135168/,
  );
  await frontEnd.unshareMemory(second);
  const log = { size: 1n << 16n, offset: 0n };
  (await frontEnd.request("SET_LOG_BASE", log, [second.fd])).fds.close();
  await refused(
    scene,
    frontEnd.shareMemory(scene.memory(4096, GUEST * 3)),
    /guest memory with dirty log must be at most 131072 bytes \(limit memory\), got 135168/,
  );
  const inflight = { mmapSize: 4096n, mmapOffset: 0n, numQueues: 1, queueSize: 16 };
  await refused(
    scene,
    frontEnd.request("SET_INFLIGHT_FD", inflight, [second.fd]),
    /in-flight buffer with guest memory and dirty log must be at most 131072 bytes \(limit memory\)/,
  );
});

test("log", LIMIT, async (t) => {
  const scene = await Scene.disk(t, {}, { limits: { log: 8192 } });
  const frontEnd = await scene.frontEnd({ protocolFeatures: mask(protocolFeatures.LOG_SHMFD) });
  const { fd } = scene.memory();
  (await frontEnd.request("SET_LOG_BASE", { size: 8192n, offset: 0n }, [fd])).fds.close();
  await assert.rejects(frontEnd.request("SET_LOG_BASE", { size: 8193n, offset: 0n }, [fd]));
  // There is no way to answer failure, so the session ends.
  await scene.log.problem(/SET_LOG_BASE: size must be 1 to 8192 bytes \(limit log\), got 0x2001/);
});

test("in-flight buffer", LIMIT, async (t) => {
  const scene = await Scene.disk(t, {}, { limits: { inflight: 4096 } });
  const frontEnd = await scene.frontEnd();
  const { fd } = scene.memory();
  const inflight = (mmapSize: bigint) => ({ mmapSize, mmapOffset: 0n, numQueues: 1, queueSize: 16 });
  await frontEnd.request("SET_INFLIGHT_FD", inflight(4096n), [fd]);
  await refused(
    scene,
    frontEnd.request("SET_INFLIGHT_FD", inflight(4160n), [fd]),
    /SET_INFLIGHT_FD: size must be 1 to 4096 bytes \(limit inflight\), got 0x1040/,
  );
});

test("entries of a ring", LIMIT, async (t) => {
  const scene = await Scene.disk(t, {}, { limits: { ringSize: 64 } });
  const frontEnd = await scene.frontEnd({ withoutFeatures: mask(ringFeatures.RING_PACKED) });
  await frontEnd.request("SET_VRING_NUM", { index: 0, num: 64 });
  await refused(
    scene,
    frontEnd.request("SET_VRING_NUM", { index: 0, num: 128 }),
    /SET_VRING_NUM: ring 0: size must be a power of two up to 64 \(limit ringSize\), got 128/,
  );
});

test("rings", LIMIT, async (t) => {
  const scene = await Scene.disk(t, { numQueues: 4 }, { limits: { rings: 2 } });
  const frontEnd = await scene.frontEnd();
  assert.equal((await frontEnd.request("GET_QUEUE_NUM", undefined)).value, 2n);
  await frontEnd.request("SET_VRING_NUM", { index: 1, num: 64 });
  await refused(
    scene,
    frontEnd.request("SET_VRING_NUM", { index: 2, num: 64 }),
    /SET_VRING_NUM: ring must be 0 to 1, got 2/,
  );
});

for (const packed of [false, true]) {
  test(`requests under way, ${packed ? "packed" : "split"}`, LIMIT, async (t) => {
    const storage = new GatedStorage();
    const scene = await Scene.disk(t, { storage }, { limits: { requests: 3 } });
    const driver = await scene.driver({
      numQueues: 2,
      depth: 10,
      withoutFeatures: packed ? 0n : mask(ringFeatures.RING_PACKED),
    });
    const reads = Array.from({ length: 10 }, (_, i) => driver.read(i * 512, 512));
    for (let done = 0; done < 10; done++) {
      const most = Math.min(3, 10 - done);
      await eventually(`${most} requests are under way`, () => storage.held.length === most);
      // It stays so however often the rings are looked at.
      if (done === 0) {
        await driver.frontEnd.request("GET_QUEUE_NUM", undefined);
        assert.equal(storage.held.length, most);
      }
      storage.held.shift()?.finish();
    }
    await Promise.all(reads);
    storage.open = true;
    await verify(driver, 1);
  });
}

test("messages a second: further ones are read later, and others do not wait", LIMIT, async (t) => {
  const scene = await Scene.disk(t, {}, { limits: { messages: 100 } });
  const driver = await scene.driver();
  const peer = scene.peer();
  const start = performance.now();
  for (let n = 0; n < 150; n++) peer.say("GET_FEATURES");
  for (let n = 0; n < 100; n++) await peer.answer("GET_FEATURES");
  await verify(driver, 1);
  for (let n = 0; n < 50; n++) await peer.answer("GET_FEATURES");
  const took = performance.now() - start;
  assert.ok(took > 450, `150 messages took ${took} ms`);
  assert.deepEqual(scene.log.problems, []);
});

test("unanswered requests to the front-end", LIMIT, async (t) => {
  const scene = await Scene.disk(t, {}, { limits: { answers: 4 } });
  const peer = scene.peer();
  // Without a channel of its own, which it might not have answered on yet.
  const driver = await scene.driver({ withoutProtocolFeatures: mask(protocolFeatures.BACKEND_REQ) });
  await peer.negotiate();
  const [ours, theirs] = socketPair();
  const channel = RawPeer.on(ours);
  onEnd(t, () => channel.close());
  peer.say("SET_BACKEND_REQ_FD", undefined, [theirs]);
  close(theirs);
  const memory = scene.memory();
  const regions = new Uint8Array([
    ...new Uint8Array(new Uint32Array([1, 0]).buffer),
    ...u64(GUEST, 1 << 16, GUEST, 0),
  ]);
  peer.say("SET_MEM_TABLE", regions, [memory.fd]);
  const state = (index: number, num: number): Uint8Array =>
    new Uint8Array(new Uint32Array([index, num]).buffer);
  peer.say("SET_VRING_NUM", state(0, 8));
  peer.say(
    "SET_VRING_ADDR",
    new Uint8Array([
      ...new Uint8Array(new Uint32Array([0, 0]).buffer),
      ...u64(GUEST, GUEST + 4096, GUEST + 8192, 0),
    ]),
  );
  peer.say("SET_VRING_ENABLE", state(0, 1));
  peer.say("SET_VRING_KICK", u64(0x100));
  await peer.number("GET_FEATURES");
  for (let n = 0; n < 4; n++) scene.disk.resized();
  await peer.number("GET_FEATURES");
  assert.deepEqual(scene.log.problems, []);
  scene.disk.resized();
  await scene.log.problem(/CONFIG_CHANGE_MSG: cannot be sent: 4 requests are unanswered \(limit answers\)/);
  await verify(driver, 1);
});

test("entries of the IOTLB", LIMIT, () => {
  const iotlb = new Iotlb(new GuestMemory(), false, 16);
  for (let n = 0; n < 16; n++) iotlb.update({ iova: n * 4096, size: 4096, address: 0, permission: 3 });
  assert.deepEqual([iotlb.size, iotlb.lookup(0) !== undefined], [16, true]);
  iotlb.update({ iova: 16 * 4096, size: 4096, address: 0, permission: 3 });
  assert.deepEqual([iotlb.size, iotlb.lookup(0) !== undefined], [16, false]);
});

for (const [surplus, outcome] of [[0, 0n], [1, 1n]] as const) {
  test(`a device's state, ${surplus} bytes too large`, LIMIT, async (t) => {
    const frame = (await frameState(63, new Uint8Array(0))).length;
    const bytes = 2048 - frame + surplus;
    const keeper = (): Device =>
      defineDevice({
        type: 63,
        queues: [() => {}],
        state: { save: () => new Uint8Array(bytes), load: () => {} },
      });
    const from = await Scene.open(t, keeper());
    const to = await Scene.open(t, keeper(), { limits: { state: 2048 } });
    const features = { protocolFeatures: mask(protocolFeatures.DEVICE_STATE) };
    const [source, target] = [await from.frontEnd(features), await to.frontEnd(features)];
    const [read, write] = socketPair();
    await source.request("SET_DEVICE_STATE_FD", { direction: 0, phase: 0 }, [write]);
    close(write);
    await target.request("SET_DEVICE_STATE_FD", { direction: 1, phase: 0 }, [read]);
    close(read);
    assert.equal((await target.request("CHECK_DEVICE_STATE", undefined)).value, outcome);
    if (outcome !== 0n) await to.log.problem(/device state must have at most 2048 bytes \(limit state\)/);
  });
}

test("bounds have bounds, and names", LIMIT, () => {
  assert.deepEqual(limitsOf(), defaultLimits);
  assert.equal(limitsOf({ regions: 8 }).regions, 8);
  assert.throws(() => limitsOf({ regions: 0 }), /limit regions must be 1 to 509 regions, got 0/);
  assert.throws(() => limitsOf({ rings: 1.5 }), /limit rings must be 1 to 256 rings, got 1.5/);
  assert.throws(() => limitsOf({ region: 8 } as never), /there is no limit 'region', only sessions, rings/);
});

test("docs/limits.md has every bound", () => {
  const bytes = (value: number): string => {
    for (
      const [unit, size] of [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]] as const
    ) {
      if (value % size === 0) return `${value / size} ${unit}`;
    }
    return `${value} bytes`;
  };
  checkGenerated(
    "docs/limits.md",
    "limits",
    table(
      ["Limit", "Default", "What it bounds", "Beyond it"],
      Object.entries(limitTable).map(([name, { value, unit, what, beyond }]) => [
        `\`${name}\``,
        unit === "bytes" ? bytes(value) : `${value} ${unit}`,
        what,
        beyond,
      ]),
    ),
  );
});
