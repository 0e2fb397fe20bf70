import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type DriverQueue, FrontEnd, type Piece, SharedMemory } from "../../src/frontend/mod.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { root, startDeno } from "../support/our_backend.ts";
import type { Child } from "../support/process.ts";
import { Modules } from "./modules.ts";

const LIMIT = { timeout: 120_000 };
const PATIENCE = 30_000;

/** Answers with a number; requests with two bytes of room it keeps, unless the number is even. */
const DEVICE = `
import { defineDevice } from "@vhost/user";
import { version } from "./version.ts";
export default (options) => {
  if (version === 13) throw new Error("unlucky");
  return defineDevice({
    type: 63,
    queues: [(chain) => {
      if (version === 66) for (;;);
      if (chain.writable.byteLength === 2 && version % 2 === 1) return new Promise(() => {});
      chain.write(Uint8Array.of(version));
    }],
  });
};`;

const versionIs = (number: number): string => `export const version = ${number};\n`;

interface Watched {
  readonly child: Child;
  readonly modules: Modules;
  readonly socket: string;
  /** Processes that it has started. */
  processes(): number[];
  connect(): Promise<Driver>;
}

/** A driver that comes back by itself. */
interface Driver {
  readonly frontEnd: FrontEnd;
  /** The number that a version answers with. */
  ask(room?: number): Promise<number>;
  /** Asks until there is another answer than before. */
  until(version: number): Promise<void>;
}

async function drive(scope: Scope, socket: string): Promise<Driver> {
  const frontEnd = await FrontEnd.connect(socket, { reconnect: { firstDelay: 1, longestDelay: 20 } });
  const memory = new SharedMemory(1 << 20);
  onEnd(scope, () => {
    frontEnd.close();
    memory.close();
  });
  await frontEnd.shareMemory(memory);
  assert.ok(await frontEnd.recordInflight(1, 64));
  const queue: DriverQueue = await frontEnd.startQueue(0, memory, { size: 64 });
  await frontEnd.driverOk();
  const free: Piece[] = [];
  const ask = async (room = 1): Promise<number> => {
    const piece = free.pop() ?? memory.allocate(2);
    assert.equal(await queue.request([], [{ guestAddress: piece.guestAddress, length: room }]), 1);
    free.push(piece);
    return piece.bytes[0];
  };
  const until = async (version: number): Promise<void> => {
    for (const end = performance.now() + PATIENCE; await ask() !== version; await sleep(5)) {
      assert.ok(performance.now() < end, `version ${version} does not come`);
    }
  };
  return { frontEnd, ask, until };
}

/** Serves a module and watches it. */
async function watch(scope: Scope, options: { version?: number; args?: string[] } = {}): Promise<Watched> {
  const { version = 1, args = [] } = options;
  const modules = new Modules(scope);
  modules.write("version.ts", versionIs(version));
  const module = modules.write("device.ts", DEVICE);
  const socket = modules.path("socket");
  const child = startDeno(scope, [
    ...["--no-prompt", "--allow-read", "--allow-run", "--allow-env", join(root, "src/cli/mod.ts")],
    ...["run", module, `--socket-path=${socket}`, "--watch", ...args],
  ]);
  if (version !== 13) {
    const line = await child.waitLine(/^vhost-user run: .*device\.ts on /, PATIENCE);
    assert.equal(line, `vhost-user run: ${module} on ${socket}`);
  }
  return {
    ...{ child, modules, socket },
    processes: () =>
      readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").trim().split(" ").filter(Boolean)
        .map(Number),
    connect: () => drive(scope, socket),
  };
}

async function gone(pids: readonly number[]): Promise<void> {
  const lives = (pid: number): boolean => {
    try {
      // One that nobody has waited for is over all the same.
      return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
    } catch {
      return false;
    }
  };
  for (const end = performance.now() + PATIENCE; pids.some(lives); await sleep(10)) {
    assert.ok(performance.now() < end, `processes are left: ${pids.filter(lives)}`);
  }
}

test("a change of a module that is imported: new behaviour, and no request is lost", LIMIT, async (t) => {
  const { modules, connect, socket } = await watch(t);
  const { ask, until } = await connect();
  assert.equal(await ask(), 1);
  // These stay with the first version.
  const kept = Promise.all([ask(2), ask(2), ask(2)]);
  // And these go on all the time.
  let [running, answers, longest] = [true, 0, 0];
  const seen = new Set<number>();
  const loops = Array.from({ length: 8 }, async () => {
    for (let last = performance.now(); running;) {
      seen.add(await ask());
      answers++;
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }
  });
  await sleep(100);
  modules.write("version.ts", versionIs(2));
  await until(2);
  assert.deepEqual(await kept, [2, 2, 2]);
  longest = 0;
  modules.replace("version.ts", versionIs(4));
  await until(4);
  running = false;
  await Promise.all(loops);
  assert.deepEqual([...seen], [1, 2, 4], "one after the other, none comes back");
  assert.ok(answers > 100);
  t.diagnostic(`longest pause for a version that ends by itself: ${longest.toFixed()} ms`);
  assert.ok(existsSync(socket));
});

test("a module that cannot be loaded leaves the old version serving, with a message", LIMIT, async (t) => {
  const { modules, connect, child } = await watch(t);
  const { frontEnd, ask, until } = await connect();
  let reconnects = 0;
  frontEnd.onReconnect = () => void reconnects++;
  modules.write("version.ts", "export const version = ;");
  await child.waitLine(/cannot load .*SyntaxError.* at \S+version\.ts:1(:24)?$/, PATIENCE);
  await child.waitLine(/cannot be served: the version before goes on serving until it changes/, PATIENCE);
  assert.equal(await ask(), 1);
  modules.write("version.ts", 'export * from "./other.ts";\n');
  await child.waitLine(/cannot load .*(Module not found|Cannot find module) \S+other\.ts/, PATIENCE);
  assert.equal(await ask(), 1);
  assert.equal(reconnects, 0);
  // A module that was missing is looked for as well.
  modules.write("other.ts", versionIs(6));
  await until(6);
});

test(
  "one whose device cannot be made leaves nobody serving; front-ends wait for the next",
  LIMIT,
  async (t) => {
    const { modules, connect, child } = await watch(t, { version: 13 });
    await child.waitLine(/function that makes the device has failed: unlucky/, PATIENCE);
    await child.waitLine(/has ended \(status 1\); front-ends wait until it changes/, PATIENCE);
    const connecting = connect();
    await sleep(50);
    modules.write("version.ts", versionIs(2));
    const { ask } = await connecting;
    assert.equal(await ask(), 2);
  },
);

test("one that hangs is killed", LIMIT, async (t) => {
  const { modules, connect, child, processes } = await watch(t, { version: 66 });
  const { ask, until } = await connect();
  const hung = ask();
  await sleep(50);
  const before = processes();
  modules.write("version.ts", versionIs(2));
  await child.waitLine(/did not end by itself, and was killed/, PATIENCE);
  await until(2);
  assert.equal(await hung, 2);
  await gone(before.filter((pid) => !processes().includes(pid)));
});

for (const signal of ["SIGTERM", "SIGINT", "SIGKILL"] as const) {
  test(`${signal} ends all of it`, LIMIT, async (t) => {
    const { child, processes, socket, connect } = await watch(t, { args: ["--workers=1"] });
    const { ask, frontEnd } = await connect();
    assert.equal(await ask(), 1);
    frontEnd.close();
    const started = processes();
    assert.equal(started.length, 1);
    process.kill(child.pid, signal);
    const code = await child.waitEnd();
    await gone(started);
    if (signal === "SIGKILL") return;
    assert.equal(code, 0, child.output);
    assert.ok(!existsSync(socket), "the socket file is gone");
    assert.doesNotMatch(child.output, /has ended/);
  });
}

test("a socket that is connected cannot be served version after version", LIMIT, async (t) => {
  const modules = new Modules(t);
  const module = modules.write("device.ts", DEVICE);
  const child = startDeno(t, [
    ...["--allow-read", "--allow-run", "--allow-env", join(root, "src/cli/mod.ts"), "run", module],
    ...["--fd=0", "--watch"],
  ]);
  assert.notEqual(await child.waitEnd(), 0);
  assert.match(child.output, /^vhost-user run: .*(ENOTSOCK|needs a socket that listens)/);
});
