import assert from "node:assert/strict";
import { test } from "node:test";
import { close, duplicate, setBlocking, writeBytes } from "../../ffi/fd.ts";
import { mask, protocolFeatures } from "../../src/protocol/mod.ts";
import { echoDevice } from "../features/echo.ts";
import { pipe } from "../../ffi/pipe.ts";
import { onEnd } from "../support/cleanup.ts";
import { Child } from "../support/process.ts";

import { aWhile, LIMIT, Scene } from "./scene.ts";
import { stage } from "./stage.ts";

// Whether reads and writes wait belongs to the open file, which the front-end shares with us: it can change it at any time.
// Who waits then is the whole process, so somebody else ends that, too late.

/** How long it may take, ms, and when it would be ended. */
const SOON = 8000;
const LATER = 12;

/** Has somebody else do something with a descriptor, later. */
function later(scope: Parameters<typeof onEnd>[0], command: string, fd: number): void {
  Child.start(scope, "sh", ["-c", `sleep ${LATER}; ${command}`], { fds: [duplicate(fd)], stubborn: true });
}

async function soon(what: () => Promise<unknown>): Promise<void> {
  const began = performance.now();
  await what();
  const took = performance.now() - began;
  assert.ok(took < SOON, `it took ${took} ms`);
}

const RING = "printf '\\1\\0\\0\\0\\0\\0\\0\\0' >&3";

test("a kick that its front-end makes a blocking one holds nobody up", LIMIT, async (t) => {
  const { ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  await aWhile();
  setBlocking(ring.kick);
  later(t, RING, ring.kick);
  await soon(() => ring.stop());
});

test("a state that its front-end neither gives nor lets us wait for holds nobody up", LIMIT, async (t) => {
  const scene = await Scene.open(
    t,
    echoDevice({ state: { save: () => new Uint8Array(200_000), load: () => {} } }),
  );
  const frontEnd = await scene.frontEnd({ protocolFeatures: mask(protocolFeatures.DEVICE_STATE) });
  for (const direction of [0, 1]) {
    const ends = pipe();
    onEnd(t, () => ends.forEach(close));
    const [read, write] = ends;
    const given = direction === 0 ? write : read;
    await frontEnd.request("SET_DEVICE_STATE_FD", { direction, phase: 0 }, [given]);
    setBlocking(given);
    // Once the pipe is full, or there is no more than this byte, the next would wait.
    if (direction === 1) writeBytes(write, Uint8Array.of(1));
    later(t, direction === 0 ? "cat <&3 >/dev/null" : "echo >&3", direction === 0 ? read : write);
    await soon(async () => {
      for (let i = 0; i < 10; i++) {
        await aWhile();
        await frontEnd.request("GET_FEATURES", undefined);
      }
    });
  }
});
