import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import test, { type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { onEnd } from "../support/cleanup.ts";
import { startWords } from "../support/runtime.ts";

/** Runs the child until it has said "ready". */
async function child(t: TestContext, when: string): Promise<ChildProcess> {
  const script = fileURLToPath(new URL("./reactor_child.ts", import.meta.url));
  const started = spawn(process.execPath, startWords(["--allow-ffi", "--no-check"], [script, when]), {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onEnd(t, () => void started.kill("SIGKILL"));
  const [text] = await once(started.stdout, "data");
  assert.equal(String(text), "ready\n");
  return started;
}

for (const when of ["at once", "later", "prepared"]) {
  test(
    `when nothing is watched any more, the process ends by itself (${when})`,
    { timeout: 60_000 },
    async (t) => {
      const started = await child(t, when);
      const [code] = started.exitCode === null ? await once(started, "exit") : [started.exitCode];
      assert.equal(code, 0);
    },
  );
}

test("as long as something is watched, the process stays", { timeout: 60_000 }, async (t) => {
  const started = await child(t, "never");
  await sleep(300);
  assert.equal(started.exitCode, null);
});
