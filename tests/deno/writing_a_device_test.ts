import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { commands } from "../docs/page.ts";
import { root } from "../support/our_backend.ts";
import { run } from "../support/process.ts";

test("the test of the page needs no more permissions than it says", { timeout: 120_000 }, async (t) => {
  const said = commands().filter((command) => command.startsWith("deno test --allow-ffi"));
  assert.equal(said.length, 1);
  const args = said[0].split(" ").slice(1);
  const { stdout } = await run(process.execPath, args, {
    cwd: root,
    env: { NO_COLOR: "1" },
    timeout: 100_000,
    signal: t.signal,
  });
  assert.match(stdout, /ok \| 1 passed/);
});
