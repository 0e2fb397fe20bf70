import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { recording } from "../coverage/destination.ts";
import { onEnd, type Scope, tempDir } from "./cleanup.ts";
import { Child, type ChildOptions } from "./process.ts";
import { runtime, splitWords, startWords } from "./runtime.ts";

/** The directory of the toolkit. */
export const root: string = fileURLToPath(new URL("../../", import.meta.url));

/** How long a back-end may take to notice that a front-end has left, in milliseconds. */
const PATIENCE = 20_000;

/** What a back-end writes when all is well. */
const FINE = /^(vhost-user \w+: .* on |info: |→ |← |$)/;

/** What a back-end writes when it listens, or when somebody else does. It has all it needs by then; not yet when it tells of its sandbox. */
const LISTENS = /^vhost-user \w+: .* on /;

/** What Deno opens when it likes. */
const DENO_CACHE = /_cache_v\d+(-wal|-shm|-journal)?$/;

/**
 * Starts a program of ours as a user does, under Deno with the one permission that the toolkit asks for.
 *
 * @param args more options of Deno, the script, its arguments
 */
export function startDeno(scope: Scope, args: readonly string[], options: ChildOptions = {}): Child {
  const [flags, program] = splitWords(args);
  const words = startWords(["--allow-ffi", ...recording(process), ...flags], program);
  return Child.start(scope, process.execPath, words, {
    ...options,
    // Deno would add to its errors that there is no trace of them, and complain that it cannot look for a newer Deno.
    env: { RUST_BACKTRACE: "0", NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", ...options.env },
  });
}

/** Starts the command line. */
export function startCommand(scope: Scope, args: readonly string[], options: ChildOptions = {}): Child {
  return startDeno(scope, [join(root, "src/cli/mod.ts"), ...args], options);
}

/**
 * Starts an example as it stands, but for the path of its socket: other tests may be running.
 *
 * @param example name of the file; its socket is `/tmp/NAME.sock`
 */
export function startExample(scope: Scope, example: string, socket: string): Child {
  const source = readFileSync(join(root, `examples/${example}.ts`), "utf8");
  const path = `"/tmp/${example}.sock"`;
  assert.equal(source.split(path).length, 2, `${path} in the example`);
  const script = join(tempDir(scope), `${example}.ts`);
  writeFileSync(script, source.replace(path, JSON.stringify(socket)));
  return startDeno(scope, ["--no-lock", `--config=${join(root, "deno.json")}`, script]);
}

/** A back-end of ours in a process of its own. */
export class OurBackend {
  /** The process. */
  readonly child: Child;
  /** Where it listens. */
  readonly socket: string;
  /** What it may hold without a front-end: more with each thread that has once had to sleep. */
  #before: string[][];

  /** Takes over a process that listens, and that no front-end has connected to unless it `replaces` another. */
  constructor(scope: Scope, child: Child, socket: string, replaces?: OurBackend) {
    this.child = child;
    this.socket = socket;
    this.#before = replaces === undefined ? [holdings(child.pid)] : replaces.#before;
    // When the test has failed by what the front-end says, this is the other half.
    onEnd(scope, () => {
      if (this.complaints.length > 0) console.error(["the back-end said:", ...this.complaints].join("\n"));
    });
  }

  /**
   * Has its threads sleep once, to find out what each of them keeps for that: some do it in the middle of a test, when the
   * machine has much else to do, and some never.
   */
  async learnSleep(threads: number): Promise<void> {
    const [before] = this.#before;
    if (runtime === "node") {
      // The runtime itself adds nothing.
      const keeps = ["anon_inode:[eventfd]", "anon_inode:[eventpoll]"];
      for (let count = 1; count <= threads; count++) {
        this.#before.push([...before, ...Array(count).fill(keeps).flat()].sort());
      }
      return;
    }
    const kept = await sleepOnce(this.socket, threads, this.child.pid);
    for (let count = 1; count <= kept.length; count++) {
      this.#before.push([...before, ...kept.slice(0, count).flat()].sort());
    }
    // The front-end that had them sleep is gone only when nothing of it is left.
    await this.#nothingHeld();
  }

  /** Lines written so far in which it complains. */
  get complaints(): string[] {
    return this.child.output.split("\n").filter((line) => !FINE.test(line));
  }

  /** Processor time used so far, in milliseconds. */
  get cpuTime(): number {
    const stat = readFileSync(`/proc/${this.child.pid}/stat`, "utf8");
    // The name of the program, in parentheses, may have spaces.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) * 10;
  }

  /**
   * After all front-ends have left: the process lives, has given back every descriptor and all guest memory, and has
   * not complained, but for what is `expected`.
   */
  async checkUnharmed(expected: readonly string[] = []): Promise<void> {
    await this.#nothingHeld();
    // Its words take their own way here.
    for (const deadline = Date.now() + PATIENCE; this.complaints.length < expected.length;) {
      if (Date.now() > deadline) break;
      await sleep(10);
    }
    assert.deepEqual(this.complaints, expected);
  }

  /** Waits until it has given everything back. */
  async #nothingHeld(): Promise<void> {
    const deadline = Date.now() + PATIENCE;
    while (true) {
      assert.equal(this.child.code, undefined, `the back-end has ended: ${this.child.output}`);
      const now = holdings(this.child.pid);
      if (this.#before.some((each) => JSON.stringify(now) === JSON.stringify(each))) break;
      if (Date.now() > deadline) {
        assert.deepEqual(now, this.#before[0], "it still holds something of a front-end");
      }
      await sleep(20);
    }
  }
}

/** What a process holds: its descriptors, and the memory that it shares with others. */
function holdings(pid: number): string[] {
  const targets = readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:\[\d+\]$/, "")];
    } catch {
      return []; // Closed in between.
    }
  });
  const maps = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n").map((line) => line.split(/ +/));
  const shared = maps.filter(([, access]) => access?.endsWith("s")).map((map) => `memory of ${map[5]}`);
  return [...targets, ...shared].filter((each) => !DENO_CACHE.test(each)).sort();
}

/** What to serve. */
export interface DiskOptions {
  /** The image: `--blk-file`. */
  file?: string;
  /** More options of `vhost-user blk`. */
  args?: readonly string[];
  /** In how many threads: `--workers`; by default none, or what VHOST_WORKERS says. */
  workers?: number;
  /** Where to listen; a place of its own by default. */
  socket?: string;
  /** The one that it replaces, when a front-end may be connecting already. */
  replaces?: OurBackend;
}

/** Serves a device by a command of the command line; returns when it listens. */
export async function startBackend(
  scope: Scope,
  command: string,
  args: readonly string[],
  options: Pick<DiskOptions, "socket" | "replaces"> & { permissions?: readonly string[] } = {},
): Promise<OurBackend> {
  const { replaces, permissions = [], socket = replaces?.socket ?? join(tempDir(scope), `${command}.sock`) } =
    options;
  const cli = join(root, "src/cli/mod.ts");
  const child = startDeno(scope, [...permissions, cli, command, `--socket-path=${socket}`, ...args]);
  await child.waitLine(LISTENS);
  await child.waitSocket(socket);
  return new OurBackend(scope, child, socket, replaces);
}

/** Serves a disk by the command line; returns when it listens. */
export async function startDisk(scope: Scope, options: DiskOptions): Promise<OurBackend> {
  const { file, args = [], replaces, socket = replaces?.socket ?? join(tempDir(scope), "blk.sock") } =
    options;
  const { VHOST_WORKERS, VHOST_POLL_US } = process.env;
  const workers = options.workers ?? VHOST_WORKERS;
  const child = startDeno(scope, [
    // From a checkout, threads need leave to read the modules that they run.
    ...workers === undefined ? [] : [`--allow-read=${root}src,${root}ffi`],
    join(root, "src/cli/mod.ts"),
    ...["blk", `--socket-path=${socket}`],
    ...workers === undefined ? [] : [`--workers=${workers}`],
    ...VHOST_POLL_US === undefined ? [] : [`--poll-us=${VHOST_POLL_US}`],
    ...file === undefined ? [] : [`--blk-file=${file}`],
    ...args,
  ]);
  await child.waitLine(LISTENS);
  await child.waitSocket(socket);
  const backend = new OurBackend(scope, child, socket, replaces);
  if (workers !== undefined && replaces === undefined) await backend.learnSleep(Number(workers));
  return backend;
}

/**
 * Polls the first ring of each thread that has one, until the thread has slept. Returns what each thread keeps for that; one
 * that never sleeps keeps nothing.
 */
async function sleepOnce(socket: string, workers: number, pid: number): Promise<string[][]> {
  const frontEnd = await FrontEnd.connect(socket);
  const memory = new SharedMemory(1 << 16);
  await frontEnd.shareMemory(memory);
  const { value: rings } = await frontEnd.request("GET_QUEUE_NUM", undefined);
  const threads = Math.min(workers, Number(rings));
  const kept: string[][] = [];
  for (let index = 0; index < threads; index++) {
    const queue = await frontEnd.startQueue(index, memory, { size: 8 });
    await frontEnd.request("SET_VRING_KICK", { index, noDescriptor: true });
    const awake = holdings(pid);
    let more: string[] = [];
    // What a thread of Deno's opens last is a pipe; seen twice, nothing was on its way.
    for (const deadline = Date.now() + PATIENCE; Date.now() < deadline;) {
      await sleep(10);
      const last = more;
      more = without(holdings(pid), awake);
      if (more.includes("pipe") && JSON.stringify(more) === JSON.stringify(last)) break;
    }
    kept.push(more);
    await frontEnd.stopQueue(queue);
  }
  frontEnd.close();
  memory.close();
  return kept;
}

/** What is in the one list and not in the other, each as often as that. */
function without(list: readonly string[], other: readonly string[]): string[] {
  const left = [...other];
  return list.filter((each) => {
    const at = left.indexOf(each);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
}
