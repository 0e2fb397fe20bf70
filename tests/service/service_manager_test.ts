import assert from "node:assert/strict";
import { statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { libc } from "../../ffi/deno.ts";
import { close } from "../../ffi/fd.ts";
import { Native } from "../../ffi/native.ts";
import { listen, socketPair } from "../../ffi/socket.ts";
import { FrontEnd } from "../../src/frontend/mod.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { Child, run } from "../support/process.ts";
import { qemuIoArguments } from "../support/qemu_io.ts";
import { startWords } from "../support/runtime.ts";

// A service and its manager: LISTEN_FDS and NOTIFY_SOCKET.

const LIMIT = { timeout: 60_000 };
const PATIENCE = 30_000;

const program = [process.execPath, ...startWords(["--allow-ffi"], [join(root, "src/cli/mod.ts")])];
const quiet = { RUST_BACKTRACE: "0", NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" };

/** Starts a disk as a service manager would: the process id in LISTEN_PID is its own. */
function startActivated(
  t: TestContext,
  fds: readonly number[],
  { env = {}, args = [] }: { env?: Record<string, string>; args?: readonly string[] } = {},
): Child {
  const script = 'LISTEN_PID=${LISTEN_PID:-$$} exec "$0" "$@"';
  return Child.start(t, "sh", ["-c", script, ...program, "blk", "--storage=null:1M", ...args], {
    fds,
    env: { ...quiet, LISTEN_FDS: String(fds.length), ...env },
  });
}

/** A listening socket that a child is to get. */
function listening(t: TestContext): { path: string; fd: number } {
  const path = join(tempDir(t), "socket");
  return { path, fd: listen(path) };
}

test("a socket that listens is served without a word about it on the command line", LIMIT, async (t) => {
  const { path, fd } = listening(t);
  const child = startActivated(t, [fd]);
  await child.waitLine(/ on descriptor 3$/, PATIENCE);
  const frontEnd = await FrontEnd.connect(path);
  frontEnd.close();
  child.kill("SIGTERM");
  assert.equal(await child.waitEnd(PATIENCE), 0, child.output);
  assert.ok(statSync(path).isSocket(), "the socket is the service manager's, and stays");
});

test("a connection is served until it ends (Accept=yes)", LIMIT, async (t) => {
  const [ours, theirs] = socketPair();
  const child = startActivated(t, [theirs]);
  await child.waitLine(/ on descriptor 3$/, PATIENCE);
  const frontEnd = await FrontEnd.dial(() => ours);
  frontEnd.close();
  assert.equal(await child.waitEnd(PATIENCE), 0, child.output);
});

test("what is meant for another process, or cannot be right, is not served", LIMIT, async (t) => {
  const refusal = async (
    count: number,
    how: Parameters<typeof startActivated>[2] = {},
  ): Promise<string> => {
    const fds = Array.from({ length: count }, () => listening(t).fd);
    const child = startActivated(t, fds, how);
    assert.notEqual(await child.waitEnd(PATIENCE), 0);
    return child.output.split("\n")[0];
  };
  assert.equal(
    await refusal(1, { env: { LISTEN_PID: "1" } }),
    "vhost-user blk: give either --socket-path or --fd; no socket activation has passed a socket",
  );
  assert.equal(
    await refusal(2),
    "vhost-user blk: socket activation has passed 2 sockets, and a device has one: " +
      "choose from --fd=3 to --fd=4",
  );
  assert.equal(
    await refusal(1, { env: { LISTEN_FDS: "many" } }),
    "vhost-user blk: LISTEN_FDS must be a number of descriptors, got 'many'",
  );
  assert.match(
    await refusal(0, { env: { LISTEN_FDS: "1" } }),
    // The runtime has opened something of its own by then, which may be this.
    /^vhost-user blk: descriptor 3 must be a socket by LISTEN_FDS=1, and is [a-z ]+$/,
  );
});

test("the service manager hears when the service is ready, and not before", LIMIT, async (t) => {
  for (const name of [join(tempDir(t), "notify"), `@vhost-user-${process.pid}-${crypto.randomUUID()}`]) {
    const inbox = receiver(name);
    onEnd(t, () => close(inbox));
    const socket = join(tempDir(t), "disk.sock");
    const child = Child.start(
      t,
      program[0],
      [...program.slice(1), "blk", "--storage=null:1M", `--socket-path=${socket}`],
      { env: { ...quiet, NOTIFY_SOCKET: name } },
    );
    assert.equal(await message(inbox), "READY=1");
    assert.ok(statSync(socket).isSocket());
    await child.stop();
  }
});

test("a service manager that is gone is nobody's fault", LIMIT, async (t) => {
  const socket = join(tempDir(t), "disk.sock");
  const child = Child.start(
    t,
    program[0],
    [...program.slice(1), "blk", "--storage=null:1M", `--socket-path=${socket}`],
    { env: { ...quiet, NOTIFY_SOCKET: join(tempDir(t), "nobody") } },
  );
  await child.waitLine(/ on .*disk\.sock$/, PATIENCE);
});

realTest(
  "qemu-io wakes a disk that systemd-socket-activate starts",
  ["systemd-socket-activate", "qemu-io", "libblkio"],
  LIMIT,
  async (t) => {
    const directory = tempDir(t);
    const image = join(directory, "disk.img");
    writeFileSync(image, "");
    truncateSync(image, 1 << 20);
    const socket = join(directory, "disk.sock");
    const manager = Child.start(
      t,
      peerPath("systemd-socket-activate"),
      [`--listen=${socket}`, ...program, "blk", `--blk-file=${image}`],
      { env: quiet },
    );
    await manager.waitSocket(socket, PATIENCE);
    const { stdout } = await run(
      peerPath("qemu-io"),
      qemuIoArguments(socket, ["write -P 0x5a 0 64k", "read -P 0x5a 0 64k"]),
      { timeout: PATIENCE },
    );
    assert.match(stdout, /read 65536\/65536 bytes/);
  },
);

/** A socket for datagrams under a path, or after an `@`, under a name. */
function receiver(name: string): number {
  const fd = libc.socket(1, 2 | 0o4000, 0);
  const bytes = new TextEncoder().encode(name);
  const address = new Native(110);
  address.view.setUint16(0, 1, true);
  address.bytes.set(bytes, 2);
  if (name.startsWith("@")) address.bytes[2] = 0;
  assert.equal(libc.bind(fd, address.address, 2 + bytes.length), 0, `binding ${name}`);
  return fd;
}

/** Waits for a datagram. */
async function message(fd: number): Promise<string> {
  const buffer = new Native(256);
  for (const deadline = Date.now() + PATIENCE; Date.now() < deadline; await sleep(10)) {
    const length = libc.read(fd, buffer.address, 256n);
    if (length > 0) return new TextDecoder().decode(buffer.bytes.subarray(0, length));
  }
  throw new Error("nothing was said");
}
