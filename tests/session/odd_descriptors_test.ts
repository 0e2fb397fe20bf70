import assert from "node:assert/strict";
import { test } from "node:test";
import { consume, signal } from "../../ffi/eventfd.ts";
import { writeBytes } from "../../ffi/fd.ts";
import { oddDescriptors } from "../support/odd_descriptors.ts";
import { anEvent, brokenPipe, letSleep, noteDescriptors } from "./descriptors.ts";
import { putRead } from "./requests.ts";
import { aWhile, LIMIT, verify } from "./scene.ts";
import { stage } from "./stage.ts";
import { u64 } from "./wire.ts";

for (const kind of ["a regular file", "a memory file", "a directory"] as const) {
  test(`${kind} cannot be waited for, so it is refused as a kick`, LIMIT, async (t) => {
    const fd = oddDescriptors(t)[kind];
    const { scene, memory, ring: make } = await stage(t);
    const ring = make();
    await ring.place();
    await ring.enable();
    const unchanged = noteDescriptors();
    await assert.rejects(ring.setKick(fd), /SET_VRING_KICK: the peer answered failure/);
    const what = kind === "a directory" ? "directory" : "file";
    await scene.log.problem(
      new RegExp(`SET_VRING_KICK: kick descriptor must be one that can be waited for.*, got a ${what}$`),
    );
    await ring.stop();
    await unchanged();
    // With a proper one the ring runs.
    await ring.setKick();
    ring.send(putRead(ring, memory, 0, 0).head);
    await ring.until(1);
  });
}

for (
  const kind of [
    "a listening socket",
    "a connected socket",
    "a socket whose peer has gone",
    "a pipe",
    "the read end of a pipe",
    "the write end of a pipe",
  ] as const
) {
  test(`${kind} as a kick harms nobody, and the ring can be stopped`, LIMIT, async (t) => {
    const fd = oddDescriptors(t)[kind];
    const { scene, memory, ring: make } = await stage(t);
    const driver = await scene.driver();
    const ring = make();
    await letSleep(scene, ring);
    await ring.enable();
    const unchanged = noteDescriptors();
    await ring.setKick(fd);
    await aWhile();
    await verify(driver, 1);
    await ring.stop();
    await unchanged();
    await ring.setKick();
    ring.send(putRead(ring, memory, 0, 0).head);
    await ring.until(1);
  });
}

test("a path and a null device as a kick are refused, whenever that is found out", LIMIT, async (t) => {
  const odd = oddDescriptors(t);
  const { scene, ring: make } = await stage(t);
  for (const kind of ["a path", "a null device"]) {
    const ring = make();
    await ring.place();
    await ring.enable();
    const unchanged = noteDescriptors();
    await assert.rejects(ring.setKick(odd[kind]), /SET_VRING_KICK: the peer answered failure/);
    await scene.log.problem(/^warning: .*SET_VRING_KICK: /);
    await ring.stop();
    await unchanged();
  }
  await verify(await scene.driver(), 1);
});

test("a kick from a pipe counts as well as one from an eventfd", LIMIT, async (t) => {
  const pipe = oddDescriptors(t)["a pipe"];
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.place();
  await ring.setKick(pipe);
  await ring.enable();
  for (let i = 1; i <= 3; i++) {
    await aWhile();
    ring.offer(putRead(ring, memory, i % 2, i).head);
    signal(pipe);
    await ring.until(i);
  }
});

test("when nobody can ring any more, the ring is looked at all the same", LIMIT, async (t) => {
  const pipe = brokenPipe(t, "read");
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.place();
  await ring.setKick(pipe);
  await ring.enable();
  for (let i = 1; i <= 3; i++) {
    await aWhile();
    ring.offer(putRead(ring, memory, i % 2, i).head);
    await ring.until(i);
  }
  assert.equal(await ring.stop(), 3);
});

for (const message of ["setCall", "setError"] as const) {
  test(`${message} with descriptors that cannot be rung costs nothing`, LIMIT, async (t) => {
    const odd: Record<string, number> = { ...oddDescriptors(t), "a broken pipe": brokenPipe(t, "write") };
    const { scene, memory, ring: make } = await stage(t);
    const driver = await scene.driver();
    for (const [kind, fd] of Object.entries(odd)) {
      const ring = make();
      const unchanged = noteDescriptors();
      await ring.place();
      await ring.setKick();
      await ring.enable();
      if (kind === "a path") {
        await assert.rejects(ring[message](fd), /the peer answered failure/);
        await scene.log.problem(/SET_VRING_(CALL|ERR): fcntl: EBADF/);
      } else {
        await ring[message](fd);
      }
      ring.send(putRead(ring, memory, 0, 0).head, ...message === "setError" ? [99] : []);
      await ring.until(1);
      if (message === "setError") {
        await aWhile();
        await scene.log.problem(/ring 0 is broken/);
      }
      await verify(driver, 1);
      await ring.stop();
      await ring.setError(null);
      await unchanged();
    }
    assert.deepEqual(scene.log.problems, []);
  });
}

test("one event for everything of several rings", LIMIT, async (t) => {
  const event = anEvent(t);
  const { memory, ring: make } = await stage(t);
  const rings = [0, 1, 2, 3].map((index) => make({ index }));
  for (const ring of rings) {
    await ring.place();
    await ring.setError(event);
    await ring.setCall(event);
    await ring.setKick(event);
    await ring.enable();
  }
  for (let i = 1; i <= 10; i++) {
    for (const ring of rings) ring.offer(putRead(ring, memory, i % 2, i).head);
    signal(event);
    for (const ring of rings) await ring.until(i);
  }
  for (const ring of rings) assert.equal(await ring.stop(), 10);
});

test("an event that is full does not hold the device up", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  consume(ring.call);
  writeBytes(ring.call, u64(0xffff_ffff_ffff_fffdn));
  for (let i = 1; i <= 5; i++) {
    ring.send(putRead(ring, memory, i % 2, i).head);
    await ring.until(i);
  }
});

for (const kind of ["a regular file", "a directory", "a pipe", "an event", "a null device"] as const) {
  test(`${kind} is no back-end channel`, LIMIT, async (t) => {
    const fd = oddDescriptors(t)[kind];
    const { scene, frontEnd } = await stage(t);
    const driver = await scene.driver();
    const unchanged = noteDescriptors();
    await assert.rejects(frontEnd.request("SET_BACKEND_REQ_FD", undefined, [fd]));
    await scene.log.problem(/SET_BACKEND_REQ_FD: descriptor must be a socket, got a /);
    await unchanged();
    await verify(driver, 1);
  });
}

test("a listening socket as the back-end channel is given up at its first use", LIMIT, async (t) => {
  const fd = oddDescriptors(t)["a listening socket"];
  const { scene, frontEnd, ring: make } = await stage(t);
  await frontEnd.request("SET_BACKEND_REQ_FD", undefined, [fd]);
  await make().start();
  await frontEnd.driverOk();
  scene.disk.resized();
  await scene.log.problem(
    /^warning: .*the front-end did not take the change of the configuration space: .*ENOTCONN/,
  );
  await verify(await scene.driver(), 1);
});
