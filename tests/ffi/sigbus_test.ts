import assert from "node:assert/strict";
import process from "node:process";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { run, type RunResult } from "../support/process.ts";
import { startWords } from "../support/runtime.ts";

const SIGBUS = 128 + 7;

function child(mode: string): Promise<RunResult> {
  const script = fileURLToPath(new URL("./sigbus_child.ts", import.meta.url));
  return run(process.execPath, startWords(["--allow-ffi", "--allow-read", "--no-check"], [script, mode]), {
    check: false,
  });
}

for (
  const [mode, what, said] of [
    ["read", "reads find zeros", "0 0; lost 1"],
    ["write", "writes go nowhere, and other mappings stay", "0 3 7; lost 1"],
    ["atomics", "atomic accesses are atomic", "0 5; lost 1"],
    ["copy", "a copy goes on where it was", "0; lost 2"],
    ["collage", "pages that are mapped a second time are watched by themselves", "0; lost 1"],
    ["thread", "another thread goes on, and who has mapped it is told", "0,0,9,9; lost 1"],
    ["together", "threads that begin to watch together lose nothing", "0 others"],
    ["often", "it happens as often as it does", "lost 300"],
  ] as const
) {
  test(`a mapped file becomes shorter: ${what}`, { timeout: 30_000 }, async () => {
    const { code, stdout, stderr } = await child(mode);
    assert.equal(stdout, `${said}\n`, stderr);
    assert.equal(code, 0);
  });
}

for (const mode of ["unwatched", "unmapped"]) {
  test(
    `whoever touches memory that nobody watches over ends as before (${mode})`,
    { timeout: 30_000 },
    async () => {
      const { code, stdout } = await child(mode);
      assert.deepEqual([code, stdout], [SIGBUS, ""]);
    },
  );
}
