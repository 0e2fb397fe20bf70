import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { onEnd } from "../support/cleanup.ts";
import { startWords } from "../support/runtime.ts";

const program = fileURLToPath(new URL("../../src/cli/mod.ts", import.meta.url));

test("a reader who takes his time gets all of the output", { timeout: 60_000 }, async (t) => {
  const child = spawn(process.execPath, startWords(["--allow-ffi"], [program, "check", "--list"]), {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onEnd(t, () => void child.kill("SIGKILL"));
  const ended = once(child, "close");
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => text += part).pause();
  // It starts, writes more than finds room on the way, and would end.
  await sleep(2000);
  child.stdout.resume();
  const [code] = await ended;
  assert.equal(code, 0);
  const lines = text.split("\n");
  assert.ok(lines.length > 400, `${lines.length} lines`);
  assert.equal(lines.at(-1), "");
  assert.match(text, /^ {2}rings\.base /m);
});
