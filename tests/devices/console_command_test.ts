import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { buffer, filled } from "../session/requests.ts";
import { bytesOf, eventually, sameBytes } from "../session/scene.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { startCommand } from "../support/our_backend.ts";
import { run, type RunResult } from "../support/process.ts";
import { startWords } from "../support/runtime.ts";
import { root } from "../support/our_backend.ts";

const LIMIT = { timeout: 30_000 };

test(
  "the standard input and output are a terminal's end, byte by byte, and the log has it all",
  LIMIT,
  async (t) => {
    const folder = tempDir(t);
    const [socket, log] = [join(folder, "c.sock"), join(folder, "log")];
    const child = startCommand(t, ["console", `--socket-path=${socket}`, `--log=${log}`, "--size=100x30"], {
      pipe: true,
    });
    const parts: Buffer[] = [];
    child.stdout.on("data", (bytes: Buffer) => parts.push(bytes));
    await child.waitLine(/^vhost-user console: 1 terminals, 0 channels on /);
    const frontEnd = await FrontEnd.connect(socket, { withoutFeatures: 1n << 34n });
    const memory = new SharedMemory(4 << 20);
    onEnd(t, () => {
      frontEnd.close();
      memory.close();
    });
    await frontEnd.shareMemory(memory);
    const rx = await frontEnd.startQueue(0, memory, { size: 16 });
    const tx = await frontEnd.startQueue(1, memory, { size: 16 });
    assert.deepEqual([...await frontEnd.readConfig(0, 8)], [100, 0, 30, 0, 1, 0, 0, 0]);
    const output = bytesOf(1, 300_000);
    await tx.request([buffer(filled(memory, output))], []);
    await eventually("it came", () => Buffer.concat(parts).length === output.length);
    sameBytes(Buffer.concat(parts), output);
    sameBytes(readFileSync(log), output);
    const input = bytesOf(2, 200_000);
    child.stdin.end(input);
    const piece = memory.allocate(8192);
    const got: Buffer[] = [];
    while (Buffer.concat(got).length < input.length) {
      const written = await rx.request([], [buffer(piece)]);
      got.push(Buffer.from(piece.bytes.slice(0, written)));
    }
    sameBytes(Buffer.concat(got), input);
    // The end of the input is not the end of the console.
    await tx.request([buffer(filled(memory, Buffer.from("bye")))], []);
    await eventually("it came", () => Buffer.concat(parts).subarray(-3).toString() === "bye");
    assert.equal(await child.stop(), 0);
  },
);

/** Runs a command that ends by itself. */
function command(args: readonly string[]): Promise<RunResult> {
  const words = startWords(["--allow-ffi"], [join(root, "src/cli/mod.ts"), ...args]);
  return run(process.execPath, words, { check: false });
}

test("what the command line cannot understand is said", LIMIT, async () => {
  const socket = "--socket-path=/tmp/none.sock";
  for (
    const [args, message] of [
      [["console", socket, "--consoles=tcp:1"], /the other end of a port is stdio, pty, unix:PATH/],
      [["console", socket, "--consoles=stdio,stdio"], /only one port can have stdio/],
      [["console", socket, "--ports=stdio"], /--ports is a list of NAME=END/],
      [["console", socket, "--size=big"], /--size must be such as 80x24/],
      [["input", socket], /give --evdev-path/],
      [["rng", socket, "--rate-limit=fast"], /--rate-limit must be BYTES\/s or BYTES:PERIOD/],
    ] as const
  ) {
    const { code, stderr } = await command(args);
    assert.equal(code, 2, stderr);
    assert.match(stderr, message);
  }
  for (
    const [path, message] of [["/nowhere", /ENOENT/], ["/dev/null", /ENOTTY|EINVAL/], [
      "/tmp",
      /EISDIR/,
    ]] as const
  ) {
    const { code, stderr } = await command(["input", socket, `--evdev-path=${path}`]);
    assert.equal(code, 1);
    assert.match(stderr, message);
  }
});
