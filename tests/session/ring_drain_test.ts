import assert from "node:assert/strict";
import { test } from "node:test";
import { consume } from "../../ffi/eventfd.ts";
import { GatedStorage } from "./gated_storage.ts";
import { putRead } from "./requests.ts";
import { aWhile, eventually, LIMIT, verify } from "./scene.ts";
import { stage } from "./stage.ts";

test("GET_VRING_BASE is answered when every request of the ring has come back", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { memory, ring: make } = await stage(t, { storage });
  const ring = make();
  await ring.start();
  const reads = [0, 1].map((n) => putRead(ring, memory, n, n));
  ring.send(...reads.map(({ head }) => head));
  await eventually("both requests are with the storage", () => storage.held.length === 2);
  consume(ring.call);

  let base = -1;
  const stopped = ring.stop().then((answer) => base = answer);
  ring.send(putRead(ring, memory, 0, 7).head);
  await aWhile();
  assert.equal(base, -1, "no answer yet");
  assert.equal(storage.held.length, 2, "nothing new is taken");

  storage.held.shift()?.finish();
  await ring.until(1);
  await aWhile();
  assert.equal(base, -1, "one request is still out");

  storage.held.shift()?.finish();
  await stopped;
  assert.equal(base, 2);
  assert.equal(ring.usedIndex, 2, "returned before the answer");
  assert.deepEqual(reads.map(({ status }) => status.bytes[0]), [0, 0]);
  await eventually("the driver was told", () => consume(ring.call) === "rung");

  await ring.place(base);
  await ring.setKick();
  await eventually("the third request is taken now", () => storage.held.length === 1);
  storage.release();
  await ring.until(3);
});

test("while one ring drains, other rings and other front-ends go on", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { scene, memory, ring: make } = await stage(t, { storage });
  const [ring, other] = [make({ index: 0 }), make({ index: 1 })];
  for (const each of [ring, other]) await each.start();
  ring.send(putRead(ring, memory, 0, 0).head);
  await eventually("the request is with the storage", () => storage.held.length === 1);
  const [held] = storage.held.splice(0);
  const stopped = ring.stop();

  storage.open = true;
  for (let i = 0; i < 3; i++) {
    other.send(putRead(other, memory, i % 2, i).head);
    await other.until(i + 1);
  }
  await verify(await scene.driver(), 1);

  held.finish();
  assert.equal(await stopped, 1);
});

test("messages that follow GET_VRING_BASE wait for its answer and keep their order", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { frontEnd, memory, ring: make } = await stage(t, { storage });
  const ring = make();
  await ring.start();
  ring.send(putRead(ring, memory, 0, 0).head);
  await eventually("the request is with the storage", () => storage.held.length === 1);
  const order: string[] = [];
  const all = [
    ring.stop().then(() => order.push("stopped")),
    frontEnd.request("GET_FEATURES", undefined).then(() => order.push("features")),
    frontEnd.request("GET_STATUS", undefined).then(() => order.push("status")),
  ];
  await aWhile();
  assert.deepEqual(order, []);
  storage.release();
  await Promise.all(all);
  assert.deepEqual(order, ["stopped", "features", "status"]);
});

test("RESET_DEVICE waits for the requests of all rings", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { frontEnd, memory, ring: make } = await stage(t, { storage });
  const rings = [make({ index: 0 }), make({ index: 2 })];
  for (const each of rings) {
    await each.start();
    each.send(putRead(each, memory, 0, 0).head);
  }
  await eventually("both requests are with the storage", () => storage.held.length === 2);
  let reset = false;
  const done = frontEnd.request("RESET_DEVICE", undefined).then(() => reset = true);
  storage.held.shift()?.finish();
  await aWhile();
  assert.equal(reset, false);
  storage.release();
  await done;
  assert.deepEqual(rings.map((each) => each.usedIndex), [1, 1]);
});

test("a request that fails late is drained as well", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { memory, ring: make } = await stage(t, { storage });
  const ring = make();
  await ring.start();
  const { head, status } = putRead(ring, memory, 0, 0);
  ring.send(head);
  await eventually("the request is with the storage", () => storage.held.length === 1);
  const stopped = ring.stop();
  storage.held[0].fail();
  assert.equal(await stopped, 1);
  assert.equal(status.bytes[0], 1, "IOERR");
});

test("disabling a ring does not hold back what it has taken", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { memory, ring: make } = await stage(t, { storage });
  const ring = make();
  await ring.start();
  ring.send(putRead(ring, memory, 0, 0).head);
  await eventually("the request is with the storage", () => storage.held.length === 1);
  await ring.enable(false);
  storage.release();
  await ring.until(1);
});

test("requests that complete together are told in one call each time, in any order", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { memory, ring: make } = await stage(t, { storage });
  const ring = make({ size: 16 });
  await ring.start();
  const heads = [0, 1, 2, 3, 4].map((n) => putRead(ring, memory, n, n).head);
  ring.send(...heads);
  await eventually("all are with the storage", () => storage.held.length === 5);
  for (const n of [3, 0, 2]) storage.held[n].finish();
  await ring.until(3);
  assert.deepEqual([0, 1, 2].map((i) => ring.returned(i).head), [heads[3], heads[0], heads[2]]);
  for (const n of [4, 1]) storage.held[n].finish();
  await ring.until(5);
  assert.deepEqual([3, 4].map((i) => ring.returned(i).head), [heads[4], heads[1]]);
});

test("a front-end that leaves while its ring drains has left when that has ended", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { scene, frontEnd, memory, ring: make } = await stage(t, { storage });
  const ring = make();
  await ring.start();
  ring.send(putRead(ring, memory, 0, 0).head);
  await eventually("the request is with the storage", () => storage.held.length === 1);
  const lost = assert.rejects(ring.stop(), /GET_VRING_BASE: the peer left before it answered/);
  frontEnd.close();
  await lost;
  storage.release();
  await eventually("the session has ended", () => scene.server.sessions === 0);
  storage.open = true;
  await verify(await scene.driver(), 1);
});

test("a server that is closed while a ring drains has closed when that has ended", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { scene, memory, ring: make } = await stage(t, { storage });
  const ring = make();
  await ring.start();
  const { head, status } = putRead(ring, memory, 0, 0);
  ring.send(head);
  await eventually("the request is with the storage", () => storage.held.length === 1);
  const lost = assert.rejects(ring.stop(), /the peer left before it answered/);
  await aWhile();
  scene.server.close();
  await lost;
  let finished = false;
  const done = scene.server.finished.then(() => finished = true);
  await aWhile();
  assert.equal(finished, false);
  storage.release();
  await done;
  assert.equal(ring.usedIndex, 0, "the ring is not touched any more");
  assert.equal(status.bytes[0], 0, "the request's own memory was kept until its end");
});
