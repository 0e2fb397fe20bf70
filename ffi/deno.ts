/**
 * Deno's opening of libc. The one file of the toolkit that names `Deno` for native access; the Node
 * flavour of the package puts a file with the same exports in its place.
 *
 * @module
 */

import { type Libc, symbols } from "./symbols.ts";

function open(): Libc {
  // JSR hands its packages to Node, too, and there is no saying that one should not be.
  if (typeof Deno === "undefined") {
    throw new Error(
      "this is vhost-user for Deno, as on JSR; Node and Bun need the package of the same name on npm",
    );
  }
  if (Deno.build.os !== "linux" || !["x86_64", "aarch64"].includes(Deno.build.arch)) {
    throw new Error(
      "vhost-user needs Linux on x86-64 or aarch64 (descriptors over Unix sockets, eventfd, memfd); " +
        `this is ${Deno.build.os} on ${Deno.build.arch}`,
    );
  }
  try {
    // `as const` tuples are narrower than dlopen's mutable arrays; the types come from `symbols`.
    return Deno.dlopen("libc.so.6", symbols as unknown as Deno.ForeignLibraryInterface)
      .symbols as unknown as Libc;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) {
      throw new Error(
        "vhost-user calls libc for sockets with descriptors, shared memory and eventfds: run with " +
          "--allow-ffi (the flag takes no path here; a path would also block reading guest memory)",
        { cause: error },
      );
    }
    throw error;
  }
}

/** The C library, every function of the table {@link symbols}. */
export const libc: Libc = open();

/** The processor, in the kernel's word: decides a few constants and layouts. */
export const arch: "x86_64" | "aarch64" = Deno.build.arch as "x86_64" | "aarch64";

/**
 * Memory that this process has mapped, as a buffer that shares it.
 *
 * @param address of the first byte; must stay mapped until the buffer is detached
 * @param byteLength bytes; may exceed 4 GiB
 */
export function bufferAt(address: bigint, byteLength: number): ArrayBuffer {
  const pointer = Deno.UnsafePointer.create(address);
  if (pointer === null) throw new RangeError("no memory at address 0");
  return Deno.UnsafePointerView.getArrayBuffer(pointer, byteLength);
}

/** The address of the first byte of a buffer. Valid while the buffer is reachable. */
export function addressOf(buffer: ArrayBuffer): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer));
}

/** A variable of the environment, for which Deno would want leave; `undefined` when it is not set. */
export function variable(name: string): string | undefined {
  const key = new TextEncoder().encode(`${name}\0`);
  const value = libc.getenv(addressOf(key.buffer));
  // Until here nobody may take the key's memory away.
  if (value === 0n || key.length === 0) return undefined;
  const length = Number(libc.strlen(value));
  return length === 0 ? "" : new TextDecoder().decode(bufferAt(value, length));
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

/** To be told of each descriptor that a program was given which has just been started: Deno has closed them by itself. */
export function givenAway(_fd: number): void {}

/**
 * The thread in which a reactor sleeps. Its text is sent to the thread as it stands here: a thread of a module would need
 * `--allow-read` of that module, and a place in every bundle. So it uses nothing from outside.
 */
function sleep(): void {
  const scope = globalThis as unknown as {
    onmessage: (event: MessageEvent<{ set: number; cell: SharedArrayBuffer }>) => unknown;
    close(): void;
  };
  scope.onmessage = async ({ data: { set, cell } }) => {
    const { symbols: { epoll_wait } } = Deno.dlopen("libc.so.6", {
      epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
    });
    const events = new Uint8Array(64);
    const cells = new Int32Array(cell);
    Atomics.store(cells, 3, 1);
    Atomics.notify(cells, 3);
    while (Atomics.load(cells, 1) === 0) {
      const breath = Atomics.load(cells, 4);
      const ready = epoll_wait(set, events, 1, breath > 0 ? breath : -1);
      if (ready !== 0 || breath === 0) {
        Atomics.add(cells, 0, 1);
        Atomics.notify(cells, 0);
      }
      if (breath > 0) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    Atomics.store(cells, 2, 1);
    Atomics.notify(cells, 2);
    scope.close();
  };
}

/**
 * Starts a thread that sleeps in the kernel and counts the times that it woke.
 *
 * @param set an epoll set; it must stay open until the thread has ended
 * @param cell five 32-bit cells: wake-ups, counted and notified; whether to end, to be set before `set` becomes ready;
 * whether it has ended, notified; whether it is up, notified; the longest time between two turns of its event loop, ms, or
 * 0 for no limit
 */
export function startSleeper(set: number, cell: SharedArrayBuffer): void {
  const url = URL.createObjectURL(new Blob([`(${sleep})()`], { type: "application/javascript" }));
  new Worker(url, { type: "module" }).postMessage({ set, cell });
  URL.revokeObjectURL(url);
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
 * @param _wake has it return from whatever it waits for in the kernel; Deno ends without that
 */
export function startThread(
  url: string,
  name: string,
  onMessage: (message: unknown) => void,
  onFailure: (reason: string) => void,
  _wake?: () => void,
): Thread {
  const worker = new Worker(url, { type: "module", name });
  worker.onmessage = ({ data }) => onMessage(data);
  worker.onerror = (event) => {
    event.preventDefault();
    onFailure(event.message);
  };
  worker.onmessageerror = () => onFailure("a message could not be read");
  return { post: (message) => worker.postMessage(message), end: () => worker.terminate() };
}

/**
 * Why a thread may not run a module, or `undefined` when it may. Unlike an import, a thread needs leave to read the files that
 * it runs, also those that this program has itself been started from.
 */
export function threadRefusal(url: string): string | undefined {
  const { protocol, pathname } = new URL(url);
  if (protocol !== "file:") return undefined;
  const path = decodeURIComponent(pathname);
  if (Deno.permissions.querySync({ name: "read", path }).state === "granted") return undefined;
  return `threads need --allow-read of the modules that they run, and ${path} may not be read`;
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
  const scope = globalThis as unknown as OwnThreadScope;
  scope.onmessage = ({ data }) => onMessage(data);
  scope.addEventListener("error", (event) => {
    event.preventDefault();
    onError((event as ErrorEvent).error);
  });
  scope.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    onError((event as PromiseRejectionEvent).reason);
  });
  return { post: (message) => scope.postMessage(message), close: () => scope.close() };
}

/** What the global scope of a thread has. */
interface OwnThreadScope extends EventTarget {
  onmessage: (event: MessageEvent) => void;
  postMessage(message: unknown): void;
  close(): void;
}
