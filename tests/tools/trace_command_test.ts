import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { close } from "../../ffi/fd.ts";
import { accept, connect, listen } from "../../ffi/socket.ts";
import { eventually } from "../session/scene.ts";
import { u64 } from "../session/wire.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { startCommand } from "../support/our_backend.ts";
import type { Child } from "../support/process.ts";
import { bytesOf, End, REPLY } from "./trace_scene.ts";

// `vhost-user trace` as a user starts it: with `--allow-ffi` and nothing else.

const LIMIT = { timeout: 30_000 };

interface Command {
  child: Child;
  path: string;
  /** The socket that the tracer connects to. */
  listener: number;
  session(): Promise<{ front: End; back: End }>;
}

async function start(
  t: TestContext,
  args: string[] = [],
  env: Record<string, string> = {},
): Promise<Command> {
  const folder = tempDir(t);
  const [path, back] = [join(folder, "seen"), join(folder, "back")];
  const listener = listen(back);
  onEnd(t, () => close(listener));
  const child = startCommand(t, ["trace", `--listen=${path}`, `--connect=${back}`, ...args], { env });
  await child.waitLine(/listening on/);
  return {
    child,
    path,
    listener,
    session: async () => {
      const front = new End(t, connect(path));
      let fd: number | null = null;
      await eventually("a connection with the back-end", () => (fd = accept(listener)) !== null);
      return { front, back: new End(t, fd as unknown as number) };
    },
  };
}

async function exchange({ front, back }: { front: End; back: End }): Promise<void> {
  front.say("GET_FEATURES");
  await back.hear("GET_FEATURES");
  back.say("GET_FEATURES", u64(0x200), REPLY);
  await front.hear("GET_FEATURES", u64(0x200), REPLY);
}

test("it shows, summarizes on SIGUSR2 and at the end, and leaves nothing behind", LIMIT, async (t) => {
  const command = await start(t, ["--device=blk"]);
  const ends = await command.session();
  await exchange(ends);
  await command.child.waitLine(/^#1 +\d+\.\d{3} ms → GET_FEATURES$/);
  await command.child.waitLine(/← GET_FEATURES reply 0x200 FLUSH, after \d+(\.\d+)? [µm]s$/);
  command.child.kill("SIGUSR2");
  await command.child.waitLine(/^GET_FEATURES +1 +1 +0 /);
  assert.doesNotMatch(command.child.output, /[Dd]ebugger/);
  await exchange(ends);
  command.child.kill("SIGTERM");
  assert.equal(await command.child.waitEnd(), 0);
  assert.match(command.child.output, /^GET_FEATURES +2 +2 +0 /m);
  assert.ok(!command.child.output.includes("\x1b"));
  await ends.front.ended();
  await ends.back.ended();
  assert.ok(!existsSync(command.path));
});

test("with --json every line is an object", LIMIT, async (t) => {
  const command = await start(t, ["--json"]);
  const ends = await command.session();
  await exchange(ends);
  ends.front.close();
  await ends.back.ended();
  command.child.kill("SIGINT");
  assert.equal(await command.child.waitEnd(), 0);
  const lines = command.child.output.trimEnd().split("\n").filter((line) => !line.startsWith("vhost-user"));
  assert.deepEqual(lines.map((line) => JSON.parse(line).type), [
    "session",
    "message",
    "message",
    "session",
    "summary",
  ]);
});

test("messages pass while nobody reads the trace, and after its reader has left", LIMIT, async (t) => {
  const folder = tempDir(t);
  const [path, backPath] = [join(folder, "seen"), join(folder, "back")];
  const listener = listen(backPath);
  onEnd(t, () => close(listener));
  const child = startCommand(t, ["trace", `--listen=${path}`, `--connect=${backPath}`], { pipe: true });
  await child.waitLine(/listening on/);
  const front = new End(t, connect(path));
  let fd: number | null = null;
  await eventually("a connection", () => (fd = accept(listener)) !== null);
  const back = new End(t, fd as unknown as number);
  // About a hundred bytes of trace each: more than a pipe and what reads it take.
  const pass = async () => {
    for (let i = 0; i < 5000; i++) {
      front.say(1000 + i, u64(i));
      if (i % 50 === 49) { for (let k = i - 49; k <= i; k++) await back.expect(bytesOf(1000 + k, u64(k))); }
    }
  };
  child.stdout.pause();
  await pass();
  child.stdout.destroy();
  await pass();
  await child.waitLine(/EPIPE.*messages are passed on all the same/);
  child.kill("SIGTERM");
  assert.equal(await child.waitEnd(), 0);
});

test("a command line that cannot be understood is refused", LIMIT, async (t) => {
  for (
    const [args, complaint] of [
      [["--listen=/tmp/a"], /give both --listen and --connect/],
      [["--listen=/tmp/a", "--connect=/tmp/a"], /must not be the same/],
      [
        ["--listen=/tmp/a", "--connect=/tmp/b", "--device=tape"],
        /--device must be net, blk, .*got 'tape'/,
      ],
      [["--listen=/tmp/a", "--connect=/tmp/b", "--socket-mode=9"], /must be octal/],
    ] as const
  ) {
    const child = startCommand(t, ["trace", ...args]);
    assert.equal(await child.waitEnd(), 2);
    assert.match(child.output, complaint);
  }
});

test("a live socket is refused", LIMIT, async (t) => {
  const command = await start(t);
  const second = startCommand(t, ["trace", `--listen=${command.path}`, "--connect=/nowhere"]);
  assert.equal(await second.waitEnd(), 1);
  assert.match(second.output, /another process is listening on/);
  // And is still there. The one who has only looked may have been taken for a front-end.
  const front = new End(t, connect(command.path));
  front.say("GET_FEATURES");
  const back: End[] = [];
  await eventually("the message", () => {
    const fd = accept(command.listener);
    if (fd !== null) back.push(new End(t, fd));
    return back.some((end) => typeof end.look() === "object");
  });
});
