import assert from "node:assert/strict";
import { test } from "node:test";
import { pipe } from "../../ffi/pipe.ts";
import { close, readBytes, setNonblocking, writeBytes } from "../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import type { FrontEnd } from "../../src/frontend/mod.ts";
import { frameState, unframeState } from "../../src/backend/device_state.ts";
import { mask, protocolFeatures } from "../../src/protocol/mod.ts";
import { aWhile, bytesOf, eventually, LIMIT, Scene } from "../session/scene.ts";
import { noteDescriptors } from "../session/descriptors.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { oddDescriptors } from "../support/odd_descriptors.ts";
import { echoDevice } from "./echo.ts";

const DEVICE_STATE = mask(protocolFeatures.DEVICE_STATE);
const SAVE = { direction: 0, phase: 0 };
const LOAD = { direction: 1, phase: 0 };

interface Keeper {
  readonly frontEnd: FrontEnd;
  readonly scene: Scene;
  state: Uint8Array;
}

async function keeper(scope: Scope, state = new Uint8Array(0)): Promise<Keeper> {
  const kept = { state };
  const scene = await Scene.open(
    scope,
    echoDevice({
      state: { save: () => kept.state, load: (loaded) => void (kept.state = loaded.slice()) },
    }),
  );
  const frontEnd = await scene.frontEnd({ protocolFeatures: DEVICE_STATE });
  return Object.assign(kept, { frontEnd, scene });
}

/** What comes out of a pipe until its end. */
async function drain(fd: number): Promise<Uint8Array> {
  setNonblocking(fd);
  const bytes: number[] = [];
  let ended = false;
  await eventually("the end of the state", () => {
    for (let piece = readBytes(fd); piece !== null; piece = readBytes(fd)) {
      if (piece.length === 0) return ended = true;
      bytes.push(...piece);
    }
    return ended;
  });
  return Uint8Array.from(bytes);
}

/** Has the back-end load bytes; returns its verdict. */
async function load({ frontEnd }: Keeper, bytes: Uint8Array): Promise<bigint> {
  const [read, write] = pipe();
  const { value } = await frontEnd.request("SET_DEVICE_STATE_FD", LOAD, [read]);
  close(read);
  assert.deepEqual(value, { error: 0, noDescriptor: true });
  setNonblocking(write);
  let at = 0;
  await eventually("all is written", () => {
    while (at < bytes.length) {
      const n = writeBytes(write, bytes.subarray(at));
      if (n === null) return false;
      at += n;
    }
    return true;
  });
  close(write);
  return (await frontEnd.request("CHECK_DEVICE_STATE", undefined)).value;
}

test("a state that fills the pipe many times goes from one device to another", LIMIT, async (t) => {
  const state = bytesOf(1, 300_000);
  const source = await keeper(t, state);
  const [read, write] = pipe();
  const { value } = await source.frontEnd.request("SET_DEVICE_STATE_FD", SAVE, [write]);
  close(write);
  assert.deepEqual(value, { error: 0, noDescriptor: true });
  // The session goes on while the pipe is full.
  assert.equal((await source.frontEnd.request("GET_QUEUE_NUM", undefined)).value, 1n);
  const framed = await drain(read);
  close(read);
  assert.equal((await source.frontEnd.request("CHECK_DEVICE_STATE", undefined)).value, 0n);

  const target = await keeper(t);
  assert.equal(await load(target, framed), 0n);
  assert.deepEqual(target.state, state);
  assert.deepEqual([...source.scene.log.problems, ...target.scene.log.problems], []);
});

test("an empty state is a state", LIMIT, async (t) => {
  const target = await keeper(t, Uint8Array.of(1));
  assert.equal(await load(target, await frameState(63, new Uint8Array(0))), 0n);
  assert.equal(target.state.length, 0);
});

test(
  "a state that is cut off, too long, damaged, foreign or none is refused and changes nothing",
  LIMIT,
  async (t) => {
    const good = await frameState(63, bytesOf(2, 1000));
    const damaged = good.slice();
    damaged[500] ^= 1;
    const future = good.slice();
    future[4] = 2;
    const cases: readonly (readonly [Uint8Array, RegExp])[] = [
      [good.subarray(0, 999), /has 943 bytes, its frame says 1000/],
      [Uint8Array.of(...good, 0), /has 1001 bytes/],
      [damaged, /damaged/],
      [await frameState(2, bytesOf(2, 10)), /of virtio device 2, expected 63/],
      [future, /format must be 1, got 2/],
      [bytesOf(3, 100), /no device state/],
      [new Uint8Array(0), /of 0 bytes/],
    ];
    const target = await keeper(t, Uint8Array.of(7));
    for (const [bytes, problem] of cases) {
      assert.equal(await load(target, bytes), 1n);
      await target.scene.log.problem(problem);
      assert.deepEqual(target.state, Uint8Array.of(7));
    }
    await assert.rejects(unframeState(63, damaged), /damaged/);
  },
);

test(
  "CHECK_DEVICE_STATE without a transfer fails; so does a transfer while a ring runs",
  LIMIT,
  async (t) => {
    const target = await keeper(t);
    assert.equal((await target.frontEnd.request("CHECK_DEVICE_STATE", undefined)).value, 1n);
    await target.scene.log.problem(/after SET_DEVICE_STATE_FD/);
    const memory = target.scene.memory();
    await target.frontEnd.shareMemory(memory);
    await target.frontEnd.startQueue(0, memory, { size: 4 });
    const [read, write] = pipe();
    const { value } = await target.frontEnd.request("SET_DEVICE_STATE_FD", SAVE, [write]);
    assert.deepEqual(value, { error: 1, noDescriptor: true });
    await target.scene.log.problem(/ring 0 runs/);
    close(read);
    close(write);
  },
);

test("a reader that leaves ends the transfer, not the session", LIMIT, async (t) => {
  const source = await keeper(t, bytesOf(1, 300_000));
  const [read, write] = pipe();
  await source.frontEnd.request("SET_DEVICE_STATE_FD", SAVE, [write]);
  close(write);
  close(read);
  assert.equal((await source.frontEnd.request("CHECK_DEVICE_STATE", undefined)).value, 1n);
  await source.scene.log.problem(/EPIPE/);
  assert.equal((await source.frontEnd.request("GET_QUEUE_NUM", undefined)).value, 1n);
});

for (const who of ["front-end", "server"] as const) {
  test(`a ${who} that leaves while the outcome is awaited ends transfer and session`, LIMIT, async (t) => {
    const { frontEnd, scene } = await keeper(t);
    // The other end stays open, and silent.
    const [read, write] = pipe();
    onEnd(t, () => [read, write].forEach(close));
    await frontEnd.request("SET_DEVICE_STATE_FD", LOAD, [read]);
    const outcome = frontEnd.request("CHECK_DEVICE_STATE", undefined);
    outcome.catch(() => {});
    await aWhile();
    if (who === "front-end") frontEnd.close();
    else scene.server.close();
    await assert.rejects(outcome);
    await eventually("the session is over", () => scene.server.sessions === 0);
    assert.match(scene.log.problems[0], /the transfer was given up/);
  });
}

test(
  "a state comes and goes by a pipe or a socket; anything else is refused and closed",
  LIMIT,
  async (t) => {
    const { frontEnd, scene } = await keeper(t);
    const odd = oddDescriptors(t);
    // As long as anybody reads.
    const zeros = openFile("/dev/zero", OpenFlag.READ_WRITE);
    onEnd(t, () => close(zeros));
    const unchanged = noteDescriptors();
    for (const fd of [odd["a path"], odd["a regular file"], odd["an event"], zeros]) {
      for (const direction of [SAVE, LOAD]) {
        const { value } = await frontEnd.request("SET_DEVICE_STATE_FD", direction, [fd]);
        assert.deepEqual(value, { error: 1, noDescriptor: true });
        await scene.log.problem(/SET_DEVICE_STATE_FD: .*: descriptor must be a pipe or a socket, got a /);
        assert.equal((await frontEnd.request("CHECK_DEVICE_STATE", undefined)).value, 1n);
        await scene.log.problem(/after SET_DEVICE_STATE_FD/);
      }
    }
    await unchanged();
  },
);

test("a device without state does not offer it", LIMIT, async (t) => {
  const scene = await Scene.open(t, echoDevice());
  const frontEnd = await scene.frontEnd({ protocolFeatures: DEVICE_STATE });
  assert.equal(frontEnd.negotiated("DEVICE_STATE"), false);
});
