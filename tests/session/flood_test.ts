import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Child } from "../support/process.ts";
import { startWords } from "../support/runtime.ts";
import { Scene, verify } from "./scene.ts";

const script = fileURLToPath(new URL("flood.ts", import.meta.url));

/** How often the other front-end works on its disk. */
const TIMES = 20;

test("a front-end that never stops talking leaves others their turn", { timeout: 150_000 }, async (t) => {
  const scene = await Scene.disk(t);
  const driver = await scene.driver();
  await verify(driver, 1);
  let flooded = 0;
  const flood = Child.start(
    t,
    process.execPath,
    startWords(["--allow-all", "--no-check"], [script, scene.path]),
    { stubborn: true },
  );
  // Should nobody else get a turn, not even this test, the kernel ends it.
  Child.start(t, "sh", ["-c", `sleep 100; kill -KILL ${flood.pid}`], { stubborn: true });
  await flood.waitLine(/flooding/);
  const began = performance.now();
  for (let i = 0; i < TIMES; i++) {
    await verify(driver, i);
    flooded = scene.server.sessions;
    assert.equal(flood.code, undefined, "it still floods");
  }
  assert.equal(flooded, 2);
  const took = performance.now() - began;
  assert.ok(took < 10_000, `it took ${took} ms to be served ${TIMES} times`);
});
