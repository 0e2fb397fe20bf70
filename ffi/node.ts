/**
 * Node's opening of libc, by koffi: what `deno.ts` exports, for Node 22 and newer. The package for npm has it in the place of
 * `deno.ts`, and so has `scripts/node/hooks.mjs` for the sources. Nothing imports it by its name: what is made for Deno
 * never mentions koffi.
 *
 * @module
 */

import koffi from "koffi";
import process from "node:process";
import { parentPort, Worker } from "node:worker_threads";
import { type Libc, type NativeType, symbols } from "./symbols.ts";

/** The table's types as koffi calls them. */
const TYPES: Readonly<Record<NativeType, string>> = {
  i32: "int32_t",
  u32: "uint32_t",
  i64: "int64_t",
  u64: "uint64_t",
  void: "void",
};

const READABLE = { readable: true };
/** A `struct epoll_event` that nobody reads; here, so that it stays. */
const EVENT = new ArrayBuffer(16);

function open(): Libc {
  if (process.platform !== "linux" || !["x64", "arm64"].includes(process.arch)) {
    throw new Error(
      "vhost-user needs Linux on x86-64 or aarch64 (descriptors over Unix sockets, eventfd, memfd); " +
        `this is ${process.platform} on ${process.arch}`,
    );
  }
  if (process.versions.bun !== undefined) {
    // Where koffi asks for them, Bun ends the process with a report of a crash.
    throw new Error(
      "vhost-user does not run under Bun, which lacks functions of libuv (oven-sh/bun#18546) and ends at " +
        "guest memory above 4 GiB; use Node 22 or newer, or Deno",
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

/** The C library, every function of the table {@link symbols}. */
export const libc: Libc = open();

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

/** A variable of the environment; `undefined` when it is not set. */
export function variable(name: string): string | undefined {
  return process.env[name];
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

/** To be told of each descriptor that a program was given which has just been started: Node leaves them open. */
export function givenAway(fd: number): void {
  libc.close(fd);
}

/**
 * Sleeps in the kernel while the isolate has nothing to do, and counts the times that it woke. Node's event loop itself can
 * wait for a descriptor, so there is no thread here: none that would need files of its own behind a sandbox, and none that
 * could not be ended.
 *
 * @param set an epoll set of descriptors that report but once
 * @param cell five 32-bit cells: wake-ups, counted and notified; whether to end, to be set before `set` becomes ready;
 * whether it has ended, notified; whether it is up, notified; the last, for the turns of a thread's event loop, is not used
 */
export function startSleeper(set: number, cell: SharedArrayBuffer): void {
  const cells = new Int32Array(cell);
  const poll = koffi.node.poll(set, READABLE, () => {
    // Takes what is there, which would be reported again.
    libc.epoll_wait(set, addressOf(EVENT), 1, 0);
    // Its waiters go on in a turn of their own: koffi calls this without one, so that promises would stay where they are.
    Atomics.add(cells, 0, 1);
    Atomics.notify(cells, 0);
    if (Atomics.load(cells, 1) === 0) return;
    poll.close();
    Atomics.store(cells, 2, 1);
    Atomics.notify(cells, 2);
  });
  Atomics.store(cells, 3, 1);
  Atomics.notify(cells, 3);
}

/** Threads that run, and how each is woken. */
const running = new Map<Worker, () => void>();

// Node waits for its threads when it ends, and cannot interrupt one that waits in the kernel.
process.on("exit", () => {
  for (const [worker, wake] of running) {
    void worker.terminate();
    wake();
  }
});

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
 * @param wake has it return from whatever it waits for in the kernel
 */
export function startThread(
  url: string,
  name: string,
  onMessage: (message: unknown) => void,
  onFailure: (reason: string) => void,
  wake: () => void = () => {},
): Thread {
  const worker = new Worker(new URL(url), { name });
  running.set(worker, wake);
  worker.on("message", onMessage);
  worker.on("error", (error) => onFailure(error instanceof Error ? error.message : String(error)));
  worker.on("messageerror", () => onFailure("a message could not be read"));
  worker.on("exit", (code) => {
    running.delete(worker);
    onFailure(`it has exited with status ${code}`);
  });
  const end = (): void => {
    // From here on, what woke it may be closed.
    running.delete(worker);
    void worker.terminate();
  };
  return { post: (message) => worker.postMessage(message), end };
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
