import assert from "node:assert/strict";
import { test } from "node:test";
import { consume, signal } from "../../ffi/eventfd.ts";
import { mask, protocolFeatures } from "../../src/protocol/mod.ts";
import { echoDevice } from "../features/echo.ts";
import { anEvent } from "./descriptors.ts";
import { putRead } from "./requests.ts";
import { Ring } from "./rings.ts";
import { aWhile, eventually, LIMIT, Scene } from "./scene.ts";
import { NOT_BY_HAND, stage } from "./stage.ts";

const PROTOCOL_FEATURES = 1n << 30n;

for (
  const [order, first, second] of [
    ["started, then enabled", (r: Ring) => r.setKick(), (r: Ring) => r.enable()],
    ["enabled, then started", (r: Ring) => r.enable(), (r: Ring) => r.setKick()],
  ] as const
) {
  test(`a ring that is ${order} runs from then on, without a kick`, LIMIT, async (t) => {
    const { memory, ring: make } = await stage(t);
    const ring = make();
    await ring.place();
    const { head, status } = putRead(ring, memory, 0, 0);
    ring.offer(head);
    await first(ring);
    await aWhile();
    assert.equal(ring.usedIndex, 0, "half of it is not enough");
    await second(ring);
    await ring.until(1);
    assert.deepEqual(ring.returned(0), { head, written: 513 });
    assert.equal(status.bytes[0], 0);
  });
}

test("a kick serves what came later", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  await aWhile();
  for (let i = 0; i < 2; i++) ring.send(putRead(ring, memory, i, i).head);
  await ring.until(2);
});

test("without PROTOCOL_FEATURES rings are enabled at once", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t, { withoutFeatures: PROTOCOL_FEATURES });
  const ring = make({ index: 3 });
  await ring.place();
  await ring.setKick();
  ring.send(putRead(ring, memory, 0, 0).head);
  await ring.until(1);
});

test("rings of a device with crypto sessions are enabled at once", LIMIT, async (t) => {
  const crypto = { create: () => 0n, close: () => {} };
  for (const sessions of [true, false]) {
    const scene = await Scene.open(t, echoDevice({ crypto }));
    const frontEnd = await scene.frontEnd({
      withoutFeatures: NOT_BY_HAND,
      protocolFeatures: sessions ? mask(protocolFeatures.CRYPTO_SESSION) : 0n,
    });
    const memory = scene.memory();
    await frontEnd.shareMemory(memory);
    const ring = new Ring(t, frontEnd, memory);
    await ring.place();
    await ring.setKick();
    const piece = memory.allocate(8, 8);
    ring.describe(0, { address: piece.guestAddress, length: 8 });
    ring.send(0);
    if (sessions) {
      await ring.until(1);
      await frontEnd.request("SET_VRING_ENABLE", { index: 0, num: 0 });
      ring.send(0);
    }
    await aWhile();
    assert.equal(ring.usedIndex, sessions ? 1 : 0, "a ring that is disabled stands still");
  }
});

test("a ring without a kick descriptor is polled", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.place();
  await ring.setKick(null);
  await ring.enable();
  for (let i = 1; i <= 5; i++) {
    await aWhile();
    ring.offer(putRead(ring, memory, i % 2, i).head);
    await ring.until(i);
  }
  assert.equal(await ring.stop(), 5);
  ring.offer(0);
  await aWhile();
  assert.equal(ring.usedIndex, 5, "no longer, once it is stopped");
});

test("a disabled ring is left untouched until it is enabled again", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  ring.send(putRead(ring, memory, 0, 0).head);
  await ring.until(1);
  await ring.enable(false);
  const before = ring.snapshot();
  ring.send(putRead(ring, memory, 1, 1).head);
  await aWhile();
  assert.deepEqual(ring.snapshot(), before);
  assert.equal(consume(ring.kick), "rung", "not even the kick is taken");
  await ring.enable();
  await ring.until(2);
});

test("a disabled ring may be stopped, and says where it stood", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  ring.send(putRead(ring, memory, 0, 0).head);
  await ring.until(1);
  await ring.enable(false);
  ring.offer(putRead(ring, memory, 1, 1).head);
  assert.equal(await ring.stop(), 1);
});

test("the flag of a stopped ring is remembered", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  assert.equal(await ring.stop(), 0);
  await ring.setKick();
  ring.send(putRead(ring, memory, 0, 0).head);
  await ring.until(1);
});

test("a ring goes on from the position it was given, around the end of 16 bits", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make({ start: 0xfffe });
  await ring.start();
  for (let i = 0; i < 5; i++) {
    const { head } = putRead(ring, memory, i % 2, i);
    ring.send(head);
    await ring.until((0xffff + i) & 0xffff);
    assert.deepEqual(ring.returned(0xfffe + i), { head, written: 513 });
  }
  assert.equal(await ring.stop(), 3);
  assert.equal(await ring.stop(), 3, "asked again");
});

test("a ring that never ran stands where it was put", LIMIT, async (t) => {
  const { frontEnd } = await stage(t);
  await frontEnd.request("SET_VRING_BASE", { index: 2, num: 4711 });
  const { value } = await frontEnd.request("GET_VRING_BASE", { index: 2, num: 0 });
  assert.deepEqual(value, { index: 2, num: 4711 });
});

test("a stopped ring goes on from the base that was returned", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  for (let round = 0; round < 4; round++) {
    ring.send(putRead(ring, memory, 0, round).head, putRead(ring, memory, 1, round).head);
    await ring.until(3 * round + 2);
    const base = await ring.stop();
    assert.equal(base, 3 * round + 2);
    ring.offer(0);
    await aWhile();
    assert.equal(ring.usedIndex, base, "a stopped ring does nothing");
    await ring.place(base);
    await ring.setCall();
    await ring.setKick();
    await ring.until(3 * round + 3);
  }
});

test("a stopped ring may be replaced by another in its place", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const first = make();
  await first.start();
  first.send(putRead(first, memory, 0, 0).head);
  await first.until(1);
  await first.stop();
  const second = make({ size: 64 });
  await second.start();
  second.send(putRead(second, memory, 20, 0).head);
  await second.until(1);
  assert.deepEqual(second.returned(0), { head: 60, written: 513 });
  assert.equal(first.usedIndex, 1);
});

test("while a ring runs its size and position are left alone", LIMIT, async (t) => {
  const { scene, frontEnd, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  await assert.rejects(frontEnd.request("SET_VRING_NUM", { index: 0, num: 4 }));
  await scene.log.problem(/SET_VRING_NUM: ring 0 must be stopped$/);
  await assert.rejects(frontEnd.request("SET_VRING_BASE", { index: 0, num: 0 }));
  await scene.log.problem(/SET_VRING_BASE: ring 0 must be stopped$/);
});

test("a call descriptor that comes late is signalled, for what was completed before", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.place();
  await ring.setKick();
  await ring.enable();
  ring.send(putRead(ring, memory, 0, 0).head);
  await ring.until(1);
  await ring.setCall();
  assert.equal(consume(ring.call), "rung");
  ring.send(putRead(ring, memory, 1, 0).head);
  await eventually("a call for the next request", () => consume(ring.call) === "rung");
});

test("a call descriptor may be replaced or taken away while the ring runs", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  const other = anEvent(t);
  await ring.setCall(other);
  assert.equal(consume(other), "rung");
  consume(ring.call);
  ring.send(putRead(ring, memory, 0, 0).head);
  await eventually("a call on the new descriptor", () => consume(other) === "rung");
  await ring.setCall(null);
  ring.send(putRead(ring, memory, 1, 0).head);
  await ring.until(2);
  assert.equal(consume(other), "quiet");
  assert.equal(consume(ring.call), "quiet");
});

test("the driver's wish not to be interrupted is heard", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  // The first notification after the start is always sent.
  ring.send(putRead(ring, memory, 0, 0).head);
  await ring.until(1);
  await aWhile();
  consume(ring.call);
  ring.available.bytes[0] = 1;
  ring.send(putRead(ring, memory, 1, 0).head);
  await ring.until(2);
  await aWhile();
  assert.equal(consume(ring.call), "quiet");
});

test("a kick descriptor is replaced; what the old one was rung for is not forgotten", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  await aWhile();
  const other = anEvent(t);
  // Offered, but nobody rings: as when the ring of the old descriptor is lost with it.
  ring.offer(putRead(ring, memory, 0, 0).head);
  await ring.setKick(other);
  await ring.until(1);
  await aWhile();
  ring.offer(putRead(ring, memory, 1, 0).head);
  signal(other);
  await ring.until(2);
  signal(ring.kick);
  await aWhile();
  assert.equal(consume(ring.kick), "rung", "nobody listens to the old one any more");
});

test("a running ring may be told its addresses again", LIMIT, async (t) => {
  const { frontEnd, memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  ring.send(putRead(ring, memory, 0, 0).head);
  await ring.until(1);
  await frontEnd.request("SET_VRING_ADDR", {
    index: 0,
    flags: 0,
    descriptor: ring.descriptor.userAddress,
    used: ring.used.userAddress,
    available: ring.available.userAddress,
    log: 0n,
  });
  ring.send(putRead(ring, memory, 1, 0).head);
  await ring.until(2);
});

for (const missing of ["SET_VRING_NUM", "SET_VRING_ADDR"] as const) {
  test(`a ring cannot start before ${missing}, and starts after it`, LIMIT, async (t) => {
    const { scene, frontEnd, memory, ring: make } = await stage(t);
    const ring = make();
    if (missing === "SET_VRING_ADDR") await frontEnd.request("SET_VRING_NUM", { index: 0, num: 8 });
    await ring.setKick();
    await assert.rejects(ring.enable(), /SET_VRING_ENABLE: the peer answered failure/);
    await scene.log.problem(new RegExp(`SET_VRING_ENABLE: ring 0 was started before ${missing}$`));
    await ring.stop();
    await ring.start();
    ring.send(putRead(ring, memory, 0, 0).head);
    await ring.until(1);
  });
}
