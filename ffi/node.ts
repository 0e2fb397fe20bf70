/**
 * Node's opening of libc, by koffi: what `deno.ts` exports, for Node 22 and newer. The package for npm has it in the place of
 * `deno.ts`, and so has `scripts/node/hooks.mjs` for the sources. Nothing imports it by its name: what is made for Deno
 * never mentions koffi.
 *
 * @module
 */

import koffi from "koffi";
import process from "node:process";
import {
  getEnvironmentData,
  isMainThread,
  parentPort,
  setEnvironmentData,
  Worker,
} from "node:worker_threads";
import { type Libc, type NativeType, symbols } from "./symbols.ts";

/** The table's types as koffi calls them. */
const TYPES: Readonly<Record<NativeType, string>> = {
  i32: "int32_t",
  u32: "uint32_t",
  i64: "int64_t",
  u64: "uint64_t",
  void: "void",
};

function open(): Libc {
  if (process.platform !== "linux" || !["x64", "arm64"].includes(process.arch)) {
    throw new Error(
      "vhost-user needs Linux on x86-64 or aarch64 (descriptors over Unix sockets, eventfd, memfd); " +
        `this is ${process.platform} on ${process.arch}`,
    );
  }
  const library = koffi.load("libc.so.6");
  return Object.fromEntries(
    Object.entries(symbols).map(([name, { parameters, result }]) => {
      const call = library.func(name, TYPES[result], parameters.map((type) => TYPES[type]));
      // koffi makes a number of what fits in one.
      const wide = (...args: unknown[]): bigint => BigInt(call(...args));
      return [name, result === "i64" || result === "u64" ? wide : call];
    }),
  ) as unknown as Libc;
}

const opened = open();

/** Where a module is. (Called as a method of `import.meta`, dnt up to 0.40 makes something else of it.) */
const { resolve } = import.meta;

/** Where a thread finds {@link endBell}. */
const END_BELL = "vhost-user: end of the process";
const EVENTFD_FLAGS = 0o2004000; // EFD_CLOEXEC, EFD_NONBLOCK
const EPOLL_CTL_ADD = 1;
const EPOLLIN = 1;

/**
 * Rung when the process ends. Node waits for its threads then, and cannot interrupt one that waits in the kernel: so this
 * descriptor is in every wait set.
 */
const endBell = getEnvironmentData(END_BELL) as unknown as number | undefined ??
  opened.eventfd(0, EVENTFD_FLAGS);
if (isMainThread) {
  setEnvironmentData(END_BELL, endBell as never);
  const one = new ArrayBuffer(8);
  new BigUint64Array(one)[0] = 1n;
  process.on("exit", () => void opened.write(endBell, addressOf(one), 8n));
}

function epoll_create1(flags: number): number {
  const set = opened.epoll_create1(flags);
  // struct epoll_event: events at 0, the descriptor at 4 or 8.
  const event = new ArrayBuffer(16);
  new Uint32Array(event).set([EPOLLIN, endBell, process.arch === "x64" ? 0 : endBell]);
  if (set >= 0) opened.epoll_ctl(set, EPOLL_CTL_ADD, endBell, addressOf(event));
  return set;
}

/** The C library, every function of the table {@link symbols}. */
export const libc: Libc = { ...opened, epoll_create1 };

/** The processor, in the kernel's word: decides a few constants and layouts. */
export const arch: "x86_64" | "aarch64" = process.arch === "x64" ? "x86_64" : "aarch64";

/**
 * Memory that this process has mapped, as a buffer that shares it.
 *
 * @param address of the first byte; must stay mapped until the buffer is detached
 * @param byteLength bytes; may exceed 4 GiB
 */
export function bufferAt(address: bigint, byteLength: number): ArrayBuffer {
  if (address === 0n) throw new RangeError("no memory at address 0");
  return koffi.view(address, byteLength);
}

/** The address of the first byte of a buffer. Valid while the buffer is reachable. */
export function addressOf(buffer: ArrayBuffer): bigint {
  return koffi.address(buffer);
}

// Each thread has an errno of its own at an address that does not change. Reading it through a mapped
// view does not call into C, and so cannot disturb it.
const errnoCell = new Int32Array(bufferAt(libc.__errno_location(), 4));

/**
 * The error number of this thread's last failed call. Read it first thing after the call: an allocation
 * in between may collect garbage, which makes system calls of its own.
 */
export function errno(): number {
  return errnoCell[0];
}

/** What a thread needs that runs no module of ours. */
interface SleeperData {
  readonly koffi: string;
  readonly set: number;
  readonly cell: SharedArrayBuffer;
}

/** The thread in which a reactor sleeps: its text is sent to the thread as it stands here, and uses nothing from outside. */
async function sleep({ koffi, set, cell }: SleeperData): Promise<void> {
  const { load, address } = ((await import(koffi)) as typeof import("koffi")).default;
  const int = "int32_t";
  const wait = load("libc.so.6").func("epoll_wait", int, [int, "uint64_t", int, int]);
  const events = new ArrayBuffer(64);
  const at = address(events);
  const cells = new Int32Array(cell);
  Atomics.store(cells, 3, 1);
  Atomics.notify(cells, 3);
  while (Atomics.load(cells, 1) === 0) {
    if (wait(set, at, 1, -1) === 0) continue;
    Atomics.add(cells, 0, 1);
    Atomics.notify(cells, 0);
  }
  Atomics.store(cells, 2, 1);
  Atomics.notify(cells, 2);
}

/**
 * Starts a thread that sleeps in the kernel and counts the times that it woke.
 *
 * @param set an epoll set; it must stay open until the thread has ended
 * @param cell five 32-bit cells: wake-ups, counted and notified; whether to end, to be set before `set` becomes ready;
 * whether it has ended, notified; whether it is up, notified; the last, for turns of its event loop, is for Deno alone
 */
export function startSleeper(set: number, cell: SharedArrayBuffer): void {
  const workerData: SleeperData = { koffi: resolve("koffi"), set, cell };
  new Worker(`(${sleep})(require("node:worker_threads").workerData)`, {
    eval: true,
    execArgv: [],
    workerData,
  });
}

/** A thread as the one sees it that has started it. Messages are copied by structured clone. */
export interface Thread {
  /** Sends a message. */
  post(message: unknown): void;
  /** Ends it: it must not be in a system call that may last. */
  end(): void;
}

/**
 * Starts a thread that runs a module.
 *
 * @param onMessage called with every message that it sends
 * @param onFailure called when it has ended by an error
 */
export function startThread(
  url: string,
  name: string,
  onMessage: (message: unknown) => void,
  onFailure: (reason: string) => void,
): Thread {
  const worker = new Worker(new URL(url), { name });
  worker.on("message", onMessage);
  worker.on("error", (error) => onFailure(error instanceof Error ? error.message : String(error)));
  worker.on("messageerror", () => onFailure("a message could not be read"));
  worker.on("exit", (code) => onFailure(`it has exited with status ${code}`));
  return { post: (message) => worker.postMessage(message), end: () => void worker.terminate() };
}

/** Why a thread may not run a module, or `undefined` when it may. */
export function threadRefusal(url: string): string | undefined {
  const { protocol } = new URL(url);
  if (["file:", "data:"].includes(protocol)) return undefined;
  return `Node runs threads from files, and ${url} is none`;
}

/** A thread as it sees itself. */
export interface OwnThread {
  /** Sends a message to the one that has started it. */
  post(message: unknown): void;
  /** Ends it, once what runs has returned. */
  close(): void;
}

/**
 * In a thread that {@link startThread} has started: takes its messages.
 *
 * @param onMessage called with each
 * @param onError called with what nobody has caught; the thread goes on
 */
export function ownThread(
  onMessage: (message: unknown) => void,
  onError: (error: unknown) => void,
): OwnThread {
  if (parentPort === null) throw new TypeError("this module is for threads alone");
  const port = parentPort;
  port.on("message", onMessage);
  process.on("uncaughtException", onError);
  process.on("unhandledRejection", onError);
  return { post: (message) => port.postMessage(message), close: () => port.close() };
}
