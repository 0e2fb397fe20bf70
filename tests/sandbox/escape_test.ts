import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { test, type TestContext } from "node:test";
import { type Confined, Confinement, type Needs } from "../../ffi/confinement.ts";
import { landlockReachesThreads, landlockVersion } from "../../ffi/landlock.ts";
import { callsOf } from "../../ffi/system_calls.ts";
import { FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { runtime } from "../support/runtime.ts";
import type { Child } from "../support/process.ts";
import { startExactly } from "./start.ts";

const LIMIT = { timeout: 60_000 };

/** A device that tries what it is told, in a process of its own to which Deno allows everything. */
class Intruder {
  readonly child: Child;
  readonly socket: string;
  /** What its sandbox says it is. */
  readonly confined: Confined | undefined;
  readonly #try: (thread: string, what: string, argument: string) => Promise<string>;

  private constructor(
    child: Child,
    socket: string,
    confined: Confined | undefined,
    attempt: Intruder["try"],
  ) {
    this.child = child;
    this.socket = socket;
    this.confined = confined;
    this.#try = attempt;
  }

  static async start(t: TestContext, needs: Needs | "off" | "sockets"): Promise<Intruder> {
    const socket = join(tempDir(t), "socket");
    const program = join(root, "tests/sandbox/intruder.ts");
    const given: Needs | "off" = needs === "sockets"
      ? { files: [{ path: dirname(socket), access: "remove" }] }
      : needs;
    const args = [program, socket, given === "off" ? "off" : JSON.stringify(given)];
    const child = startExactly(t, ["--allow-all"], args);
    await child.waitLine(/^ready$/, 30_000);
    const confined = given === "off" ? undefined : JSON.parse(child.output.split("\n")[0]) as Confined;
    const frontEnd = await FrontEnd.connect(socket);
    const memory = new SharedMemory(1 << 16);
    await frontEnd.shareMemory(memory);
    const queue = await frontEnd.startQueue(0, memory, { size: 8 });
    await frontEnd.driverOk();
    onEnd(t, () => {
      frontEnd.close();
      memory.close();
    });
    const [order, answer] = [memory.allocate(1024), memory.allocate(1024)];
    return new Intruder(child, socket, confined, async (...what) => {
      const { written } = new TextEncoder().encodeInto(JSON.stringify(what), order.bytes);
      const length = await queue.request(
        [{ guestAddress: order.guestAddress, length: written }],
        [{ guestAddress: answer.guestAddress, length: 1024 }],
      );
      return new TextDecoder().decode(answer.bytes.slice(0, length));
    });
  }

  /** Has it try something in its main thread or in one that is `"older"` than the sandbox. */
  try(thread: string, what: string, argument = ""): Promise<string> {
    return this.#try(thread, what, argument);
  }
}

/** What could be reached. */
interface Prey {
  readonly secret: string;
  readonly directory: string;
  readonly port: string;
  readonly unix: string;
}

async function prey(t: TestContext): Promise<Prey> {
  const directory = tempDir(t);
  const secret = join(directory, "secret");
  writeFileSync(secret, "secret");
  const listen = (where: number | string): Promise<Server> =>
    new Promise((resolve) => {
      const server = createServer((socket) => socket.destroy());
      onEnd(t, () => void server.close());
      const done = () => resolve(server);
      if (typeof where === "string") server.listen(where, done);
      else server.listen(where, "127.0.0.1", done);
    });
  const unix = join(directory, "unix");
  await listen(unix);
  const port = String(((await listen(0)).address() as AddressInfo).port);
  return { secret, directory, port, unix };
}

/** Calls that anybody may make: with senseless arguments they fail, by other errors than the sandbox's. */
const OPEN_TO_ALL = [
  "ptrace",
  "process_vm_readv",
  "unshare",
  "setns",
  "kcmp",
  "add_key",
  "io_uring_setup",
  "execve",
];

/** A line of `/proc/PID/task/TID/status` for all threads. */
function statuses(pid: number, name: string): string[] {
  return readdirSync(`/proc/${pid}/task`).map((thread) => {
    const text = readFileSync(`/proc/${pid}/task/${thread}/status`, "utf8");
    return new RegExp(`^${name}:\\s*(.*)$`, "m").exec(text)?.[1] ?? "none";
  });
}

/** What the runtime calls a refusal: to Deno, each is EACCES. */
const REFUSED = runtime === "deno" ? "EACCES" : "EPERM";

test(
  "without a sandbox an intruder reaches everything: what these tests try can be done",
  LIMIT,
  async (t) => {
    const { secret, directory, port, unix } = await prey(t);
    const intruder = await Intruder.start(t, "off");
    for (const thread of ["main", "older"]) {
      for (
        const [what, argument] of [
          ["open", secret],
          ["create", join(directory, `made-${thread}`)],
          ["unlink", join(directory, `made-${thread}`)],
          ["readFile", secret],
          ["spawn", "/bin/true"],
          ["tcp", port],
          ["inet", ""],
          ["unix", unix],
          ["datagrams", ""],
          ["signal", String(process.pid)],
        ]
      ) assert.equal(await intruder.try(thread, what, argument), "done", `${what} in ${thread}`);
      assert.equal(await intruder.try(thread, "type"), "EBADF");
      for (const call of OPEN_TO_ALL) {
        const result = await intruder.try(thread, "call", call);
        assert.ok(!["done", "EPERM", "EACCES"].includes(result), `${call}: ${result}`);
      }
    }
    assert.ok(statuses(intruder.child.pid, "Seccomp").every((mode) => mode === "0"));
  },
);

test("in the sandbox of a device with open files it reaches nothing, in no thread", LIMIT, async (t) => {
  const { secret, directory, port, unix } = await prey(t);
  const intruder = await Intruder.start(t, "sockets");
  const { confined } = intruder;
  if (Confinement.missing()?.includes("seccomp") === true) return assert.equal(confined?.calls, false);
  assert.equal(confined?.calls, true);
  assert.equal(confined?.noFiles, true);
  for (const thread of ["main", "older"]) {
    for (
      const [what, argument, result] of [
        ["open", secret, "EACCES"],
        ["open", "/etc/shadow", "EACCES"],
        ["create", join(directory, "made"), "EACCES"],
        ["readFile", secret, "EACCES"],
        ["spawn", "/bin/true", REFUSED],
        ["tcp", port, REFUSED],
        ["inet", "", "EPERM"],
        ["unix", unix, "EPERM"],
        ["datagrams", "", "EPERM"],
        ["signal", String(process.pid), "EPERM"],
        ["signal", String(intruder.child.pid), "done"],
        ["type", "", "EPERM"],
        ["call", "execve", "EPERM"],
        ["call", "mkdirat", "EPERM"],
        ["call", "renameat2", "EPERM"],
        ["call", "bind", "EPERM"],
        ["call", "landlock_create_ruleset", "EPERM"],
      ]
    ) assert.equal(await intruder.try(thread, what, argument), result, `${what} ${argument} in ${thread}`);
    for (const { name, number } of callsOf("dangerous")) {
      if (number === undefined) continue;
      assert.equal(await intruder.try(thread, "call", name), "EPERM", `${name} in ${thread}`);
    }
  }
  assert.equal(readFileSync(secret, "utf8"), "secret");
  assert.ok(!existsSync(join(directory, "made")));
  assert.ok(statuses(intruder.child.pid, "Seccomp").every((mode) => mode === "2"));
  assert.ok(statuses(intruder.child.pid, "NoNewPrivs").every((value) => value === "1"));
  // It serves all the same, and tidies up.
  intruder.child.kill("SIGTERM");
  assert.equal(await intruder.child.waitEnd(), 0, intruder.child.output);
  assert.ok(!existsSync(intruder.socket));
});

test(
  "only below the directory of its socket it removes files, as far as Landlock reaches",
  LIMIT,
  async (t) => {
    const { directory } = await prey(t);
    const intruder = await Intruder.start(t, "sockets");
    const version = landlockVersion();
    assert.equal(intruder.confined?.landlock, version);
    assert.equal(intruder.confined?.everyThread, landlockReachesThreads(version));
    for (const thread of ["main", "older"]) {
      const path = join(directory, thread);
      writeFileSync(path, "");
      const reached = version > 0 && (thread === "main" || landlockReachesThreads(version));
      assert.equal(await intruder.try(thread, "unlink", path), reached ? "EACCES" : "done");
      assert.equal(existsSync(path), reached);
      const beside = join(dirname(intruder.socket), thread);
      writeFileSync(beside, "");
      assert.equal(await intruder.try(thread, "unlink", beside), "done");
      assert.ok(!existsSync(beside));
    }
  },
);

test("with an inherited socket it does not even remove files", LIMIT, async (t) => {
  const { secret } = await prey(t);
  const intruder = await Intruder.start(t, {});
  const refusal = intruder.confined?.calls === true ? "EPERM" : landlockVersion() > 0 ? "EACCES" : "done";
  assert.equal(await intruder.try("main", "unlink", secret), refusal);
  if (intruder.confined?.calls === true) assert.equal(await intruder.try("older", "unlink", secret), "EPERM");
});

test("what it says it needs, it has, and that alone", LIMIT, async (t) => {
  const { secret, directory, port, unix } = await prey(t);
  const confining = landlockVersion() > 0;
  const tries = async (needs: Needs, expected: readonly (readonly [string, string, string])[]) => {
    const intruder = await Intruder.start(t, needs);
    for (const [what, argument, result] of expected) {
      assert.equal(
        await intruder.try("main", what, argument),
        result,
        `${JSON.stringify(needs)}: ${what} ${argument}`,
      );
    }
    await intruder.child.stop();
  };
  const other = join(directory, "other");
  writeFileSync(other, "");
  const away = confining ? "EACCES" : "done";
  await tries({ files: [{ path: secret, access: "read" }] }, [
    ["open", secret, "done"],
    ["readFile", secret, "done"],
    ["open", other, away],
    ["create", secret, away],
    ["unlink", secret, "EPERM"],
    ["unix", unix, "EPERM"],
  ]);
  await tries({ files: [{ path: directory, access: "create" }] }, [
    ["create", join(directory, "new"), "done"],
    ["open", "/etc/shadow", away],
    ["unlink", other, "EPERM"],
  ]);
  await tries({ unix: true }, [["unix", unix, "done"], ["inet", "", "EPERM"], ["tcp", port, REFUSED], [
    "open",
    secret,
    "EACCES",
  ]]);
  await tries({ inet: true }, [
    ["tcp", port, "done"],
    ["open", "/etc/hosts", "done"],
    ["open", secret, away],
    ["spawn", "/bin/true", REFUSED],
  ]);
  await tries({ programs: true }, [
    ["spawn", "/bin/true", "done"],
    ["open", secret, "done"],
    ["unix", unix, "done"],
    ...callsOf("dangerous").flatMap(({ name, number }) =>
      number === undefined ? [] : [["call", name, "EPERM"] as const]
    ),
  ]);
});
