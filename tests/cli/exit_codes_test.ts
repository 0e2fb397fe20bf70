import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { close } from "../../ffi/fd.ts";
import { listen } from "../../ffi/socket.ts";
import { exitCodes, exitCodesOf, loadAll } from "../../src/cli/command.ts";
import { commands } from "../../src/cli/commands.ts";
import { tempDir } from "../support/cleanup.ts";
import { startCommand } from "../support/our_backend.ts";
import { runHere } from "./run.ts";

const LIMIT = { timeout: 120_000 };

/** The status of a command line in a process of its own, and what it wrote. */
async function status(t: Parameters<typeof startCommand>[0], ...args: string[]): Promise<[number, string]> {
  const child = startCommand(t, args);
  const code = await child.waitEnd(30_000);
  return [code, child.output];
}

test("0 for what was done", LIMIT, async (t) => {
  const directory = tempDir(t);
  for (
    const args of [
      ["--help"],
      ["--version"],
      ["-V"],
      ["help", "blk"],
      ["check", "--list"],
      ["capabilities"],
      ["man"],
    ]
  ) assert.equal((await runHere(...args)).code, 0, args.join(" "));
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const socket = join(directory, signal);
    const child = startCommand(t, ["rng", `--socket-path=${socket}`]);
    await child.waitLine(/ on /, 30_000);
    child.kill(signal);
    assert.equal(await child.waitEnd(30_000), 0, signal);
    assert.ok(!existsSync(socket));
  }
});

test("1 for what failed", LIMIT, async (t) => {
  const [code, output] = await status(t, "blk", `--socket-path=${tempDir(t)}/none/x`, "--storage=mem:1M");
  assert.equal(code, 1, output);
  assert.match(output, /^vhost-user blk: /);
  assert.doesNotMatch(output, /Try /);
});

test("2 for a command line that cannot be understood", LIMIT, async (t) => {
  for (const args of [[], ["frobnicate"], ["blk", "--frobnicate"], ["rng"]]) {
    const [code, output] = await status(t, ...args);
    assert.equal(code, 2, args.join(" "));
    assert.match(output, /^vhost-user.*\nTry 'vhost-user( \w+)? --help'\.\n$/);
  }
});

test(
  "check: 0 and 1 by its cases, 2 when nothing could be checked, 128 and the signal that ended it",
  LIMIT,
  async (t) => {
    const directory = tempDir(t);
    const [socket, bad] = [join(directory, "socket"), join(directory, "bad")];
    const disk = startCommand(t, ["blk", `--socket-path=${socket}`, "--storage=mem:1M"]);
    const badDisk = startCommand(t, [
      "blk",
      `--socket-path=${bad}`,
      "--storage=mem:1M",
      "--fault=blk.read:error=EIO",
    ]);
    for (const each of [disk, badDisk]) await each.waitLine(/ on /, 30_000);
    for (const [path, code] of [[socket, 0], [bad, 1], [`${socket}.none`, 2]] as const) {
      const [actual, output] = await status(t, "check", path, "--device=blk", "--filter=blk.read");
      assert.equal(actual, code, output);
    }
    // Nobody accepts what comes here, and so nobody answers.
    const silent = join(directory, "silent");
    const listener = listen(silent);
    for (const [signal, expected] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
      const child = startCommand(t, ["check", silent, "--timeout=600", "--trace"]);
      await child.waitLine(/GET_FEATURES/, 30_000);
      child.kill(signal);
      assert.equal(await child.waitEnd(30_000), expected, child.output);
    }
    close(listener);
  },
);

test("help tells what each code means", LIMIT, async () => {
  assert.deepEqual(Object.keys(exitCodes), ["0", "1", "2"]);
  for (const [name, command] of await loadAll(commands)) {
    const { out } = await runHere(name, "--help");
    const [, part] = out.split("\nExit status:\n");
    const listed = [...part.split("\n\n")[0].matchAll(/^ {2,4}(\d{1,3}) {2}(.+)$/gm)].map((
      [, code, text],
    ) => [Number(code), text]);
    assert.deepEqual(listed, exitCodesOf(command), name);
  }
});
