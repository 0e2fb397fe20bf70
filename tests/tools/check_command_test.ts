import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { type Scope, tempDir } from "../support/cleanup.ts";
import { startCommand } from "../support/our_backend.ts";
import { type Child, run, type RunResult } from "../support/process.ts";
import { startWords } from "../support/runtime.ts";

// `vhost-user check` as a user starts it.

const LIMIT = { timeout: 60_000 };
const program = fileURLToPath(new URL("../../src/cli/mod.ts", import.meta.url));

/** Runs the command to its end. */
async function check(
  args: readonly string[],
  { permissions = ["--allow-ffi"], env = {} }: { permissions?: string[]; env?: Record<string, string> } = {},
): Promise<RunResult> {
  return await run(process.execPath, startWords(permissions, [program, "check", ...args]), {
    check: false,
    env: { RUST_BACKTRACE: "0", NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", ...env },
  });
}

/** Starts our disk. */
async function disk(scope: Scope): Promise<{ socket: string; child: Child }> {
  const socket = join(tempDir(scope), "blk.sock");
  const child = startCommand(scope, ["blk", `--socket-path=${socket}`, "--storage=mem:1M"]);
  await child.waitLine(/ on /);
  return { socket, child };
}

test("a disk is checked with --allow-ffi alone, and the table says what came of it", LIMIT, async (t) => {
  const { socket } = await disk(t);
  const { code, stdout, stderr } = await check([
    socket,
    "--device=blk",
    "--filter=blk.read,blk.flush,rings.base",
  ]);
  assert.equal(stderr, "");
  assert.equal(code, 0);
  const lines = stdout.split("\n");
  assert.equal(lines[0], `${socket} as blk`);
  assert.ok(lines.includes("Ring states"));
  assert.ok(lines.includes("  ✓ blk.read    The first sector can be read  (virtio 1.4 §5.2.6)"));
  assert.match(lines[lines.length - 2], /^3 cases: 3 pass$/);
});

test("--json prints one object, and --junit writes a file", LIMIT, async (t) => {
  const { socket } = await disk(t);
  const file = join(tempDir(t), "report.xml");
  const { code, stdout } = await check([socket, "--filter=features", "--json", `--junit=${file}`], {
    permissions: ["--allow-ffi", `--allow-write=${file}`],
  });
  assert.equal(code, 0);
  const report = JSON.parse(stdout);
  assert.equal(report.socket, socket);
  assert.equal(report.counts.fail, 0);
  assert.ok(report.cases.some(({ id }: { id: string }) => id === "features.constant"));
  assert.match(readFileSync(file, "utf8"), /<testcase classname="features" name="features\.constant: /);
});

test("a file that cannot be written is known before the run", LIMIT, async (t) => {
  const { socket } = await disk(t);
  const file = join(tempDir(t), "nowhere", "report.xml");
  const { code, stdout, stderr } = await check([socket, `--junit=${file}`], {
    permissions: ["--allow-ffi", "--allow-write"],
  });
  assert.equal(code, 2);
  assert.equal(stdout, "");
  assert.match(stderr, /report\.xml/);
});

test("--write tries what writes, and nothing else does", LIMIT, async (t) => {
  const { socket } = await disk(t);
  const without = await check([socket, "--device=blk", "--filter=blk.write*", "--json"]);
  assert.equal(without.code, 2);
  assert.match(without.stderr, /no case is left/);
  const args = [socket, "--device=blk", "--filter=blk.write*", "--write", "--write-at=65536", "--json"];
  const { code, stdout } = await check(args);
  assert.equal(code, 0);
  assert.equal(JSON.parse(stdout).counts.pass, 5);
});

test("--spawn starts the back-end, and stops it", LIMIT, async (t) => {
  const note = join(tempDir(t), "pid");
  const ours = [process.execPath, ...startWords(["--allow-ffi"], [program])].map((word) => `'${word}'`).join(
    " ",
  );
  const command = `echo $$ >'${note}'; exec ${ours} blk --socket-path={socket} --storage=mem:1M`;
  const { code, stdout, stderr } = await check([`--spawn=${command}`, "--device=blk", "--filter=blk.read"], {
    permissions: ["--allow-ffi", "--allow-run", "--allow-env"],
  });
  assert.equal(stderr, "");
  assert.equal(code, 0, stdout);
  assert.match(stdout, /1 cases: 1 pass/);
  const pid = readFileSync(note, "utf8").trim();
  assert.equal(existsSync(`/proc/${pid}`), false, "the back-end has ended");
});

test("a back-end that ends before it listens is an error, with what it wrote", LIMIT, async () => {
  const { code, stderr } = await check(["--spawn=echo no such disk {socket} >&2; exit 3"], {
    permissions: ["--allow-ffi", "--allow-run", "--allow-env"],
  });
  assert.equal(code, 2);
  assert.match(stderr, /it ended before it listened.*no such disk/s);
});

test("--list names the cases, and needs no socket", LIMIT, async () => {
  const { code, stdout } = await check(["--list"]);
  assert.equal(code, 0);
  assert.match(
    stdout,
    /^ {2}rings\.base +GET_VRING_BASE tells where the ring would go on {2}\(vhost-user "/m,
  );
  assert.doesNotMatch(stdout, /blk\.read/);
  const disks = await check(["--list", "--device=blk", "--filter=blk"]);
  assert.match(disks.stdout, /blk\.read /);
  assert.doesNotMatch(disks.stdout, /rings/);
});

test("command lines that cannot be understood end with 2, and say why", LIMIT, async () => {
  const rows: [string[], RegExp][] = [
    [[], /which socket\?/],
    [["/tmp/a", "/tmp/b"], /one socket, got \/tmp\/a and \/tmp\/b/],
    [["/tmp/a", "--device=toaster"], /--device must be any, blk.*got 'toaster'/],
    [["/tmp/a", "--filter=nothing"], /no case is left/],
    [["/tmp/a", "--timeout=soon"], /--timeout must be a whole number/],
    [["/tmp/a", "--write-at=5"], /--write-at goes with --write/],
    [["--spawn=true"], /by \{socket\}/],
    [["--wrong"], /--wrong/],
  ];
  for (const [args, expected] of rows) {
    const { code, stderr } = await check(args);
    assert.equal(code, 2, args.join(" "));
    assert.match(stderr, expected);
    assert.match(stderr, /Try 'vhost-user check --help'/);
  }
});

test("a socket where nobody listens ends with 2", LIMIT, async (t) => {
  const { code, stderr } = await check([join(tempDir(t), "none.sock"), "--timeout=1"]);
  assert.equal(code, 2);
  assert.match(stderr, /connect: ENOENT/);
});

test("a back-end that dies during the run ends it with 1", LIMIT, async (t) => {
  const { socket, child } = await disk(t);
  const command = startCommand(t, ["check", socket, "--device=blk", "--timeout=1"]);
  await command.waitLine(/framing\.byte-by-byte/);
  child.kill("SIGKILL");
  assert.equal(await command.waitEnd(30_000), 1);
  assert.match(command.output, /not run: the back-end died in /);
});

test("--help tells of everything", LIMIT, async () => {
  const { code, stdout } = await check(["--help"]);
  assert.equal(code, 0);
  assert.match(stdout, /^Usage: vhost-user check \[socket\] \[options\]$/m);
  for (
    const option of ["--device=KIND", "--spawn=COMMAND", "--filter=LIST", "--write", "--json", "--junit=FILE"]
  ) {
    assert.ok(stdout.includes(option), option);
  }
});
