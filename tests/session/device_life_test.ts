import assert from "node:assert/strict";
import { test } from "node:test";
import { defineDevice } from "../../mod.ts";
import { BlkRequest } from "../../src/devices/blk/mod.ts";
import { noteDescriptors } from "./descriptors.ts";
import { GatedStorage } from "./gated_storage.ts";
import { blk } from "./requests.ts";
import { aWhile, bytesOf, eventually, LIMIT, sameBytes, Scene, verify } from "./scene.ts";

test(
  "a disk that is not shared serves one front-end; the next waits and is then served",
  LIMIT,
  async (t) => {
    const scene = await Scene.disk(t, { shared: undefined });
    const first = await scene.driver();
    const waiting = scene.driver();
    await verify(first, 1);
    assert.equal(scene.server.sessions, 1);
    const data = bytesOf(5, 4096);
    await first.write(0, data);
    await first.close();
    const second = await waiting;
    sameBytes(await second.read(0, 4096), data);
    await verify(second, 2);
  },
);

test("several front-ends share a disk", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const drivers = await Promise.all([1, 2, 3, 4].map(() => scene.driver()));
  assert.equal(scene.server.sessions, 4);
  await Promise.all(drivers.map((each, i) => each.write(i * 8192, bytesOf(i, 8192))));
  await Promise.all(drivers.map(async (each, i) => {
    const other = (i + 1) % 4;
    sameBytes(await each.read(other * 8192, 8192), bytesOf(other, 8192));
  }));
});

test("the next front-end waits until the last one's writes have ended", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const scene = await Scene.disk(t, { storage, shared: false });
  const first = await scene.frontEnd();
  const memory = scene.memory();
  await first.shareMemory(memory);
  const queue = await first.startQueue(0, memory, { size: 8 });
  const lost = assert.rejects(blk(queue, memory, BlkRequest.OUT, 0, { out: bytesOf(1, 512) }), /has ended/);
  await eventually("the write is with the storage", () => storage.held.length === 1);
  const [old] = storage.held.splice(0);
  first.close();
  await lost;

  let connected = false;
  storage.open = true;
  const waiting = scene.driver().then((driver) => {
    connected = true;
    return driver;
  });
  await aWhile();
  assert.equal(connected, false, "otherwise the old write could end after a new one, and undo it");
  old.finish();
  await verify(await waiting, 2);
  assert.deepEqual(scene.log.problems, []);
});

test("a server has closed when the last request has ended", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const scene = await Scene.disk(t, { storage });
  const frontEnd = await scene.frontEnd();
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  const lost = assert.rejects(blk(queue, memory, BlkRequest.OUT, 0, { out: bytesOf(1, 512) }), /has ended/);
  await eventually("the write is with the storage", () => storage.held.length === 1);
  scene.server.close();
  let finished = false;
  const done = scene.server.finished.then(() => finished = true);
  await lost;
  await aWhile();
  assert.equal(finished, false);
  storage.open = true;
  storage.release();
  await done;
  assert.deepEqual(storage.done, ["write", "flush"]);
});

test("each front-end has a device of its own where the definition says so", LIMIT, async (t) => {
  const life: string[] = [];
  let count = 0;
  const device = defineDevice({
    type: 4,
    connect: () => {
      const me = ++count;
      life.push(`${me} connected`);
      return {
        queues: [() => {}],
        config: { read: () => Uint8Array.of(me) },
        disconnected: () => life.push(`${me} disconnected`),
      };
    },
  });
  const scene = await Scene.open(t, device);
  const [first, second] = [await scene.frontEnd(), await scene.frontEnd()];
  assert.deepEqual(await second.readConfig(0, 1), Uint8Array.of(2));
  assert.deepEqual(await first.readConfig(0, 1), Uint8Array.of(1));
  second.close();
  await eventually("the second has left", () => life.length === 3);
  first.close();
  await eventually("the first has left", () => life.length === 4);
  assert.deepEqual(life, ["1 connected", "2 connected", "2 disconnected", "1 disconnected"]);
});

test("a device that cannot start drops that front-end, not the server", LIMIT, async (t) => {
  let fail = true;
  const device = defineDevice({
    type: 4,
    connect: () => {
      if (fail) throw new Error("not today");
      return { queues: [() => {}] };
    },
  });
  const scene = await Scene.open(t, device);
  const unchanged = noteDescriptors();
  const peer = scene.peer();
  await peer.end();
  peer.close();
  await unchanged();
  await scene.log.problem(/^error: cannot accept a front-end; .*not today$/);
  fail = false;
  await (await scene.frontEnd()).request("GET_FEATURES", undefined);
});

test("a handler that throws costs its request, not the ring", LIMIT, async (t) => {
  let calls = 0;
  const device = defineDevice({
    type: 4,
    queues: [(chain) => {
      chain.write(Uint8Array.of(1, 2));
      if (++calls === 1) throw new Error("now");
      if (calls === 2) return Promise.reject(new Error("later"));
    }],
  });
  const scene = await Scene.open(t, device);
  const frontEnd = await scene.frontEnd();
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 4 });
  const room = { guestAddress: memory.allocate(8).guestAddress, length: 8 };
  assert.equal(await queue.request([], [room]), 2);
  await scene.log.problem(/^warning: .*a request on ring 0 failed: now$/);
  assert.equal(await queue.request([], [room]), 2);
  await scene.log.problem(/^warning: .*a request on ring 0 failed: later$/);
  assert.equal(await queue.request([], [room]), 2);
  assert.deepEqual(scene.log.problems, []);
});

test("a front-end that leaves without a word frees everything it shared", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  await (await scene.driver()).close();
  await eventually("it has left", () => scene.server.sessions === 0);
  const unchanged = noteDescriptors();
  for (let i = 0; i < 10; i++) {
    const driver = await scene.driver({ numQueues: 4 });
    await verify(driver, i);
    driver.frontEnd.close();
    await driver.close().catch(() => {});
  }
  await unchanged();
  assert.deepEqual(scene.log.problems, []);
});
