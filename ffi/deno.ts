/**
 * Deno's opening of libc. The one file of the toolkit that names `Deno` for native access; the Node
 * flavour of the package puts a file with the same exports in its place.
 *
 * @module
 */

import { type Libc, symbols } from "./symbols.ts";

function open(): Libc {
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

/**
 * Starts a thread that runs a module and hands it one message.
 *
 * @param url of the module; from a local folder Deno also asks for `--allow-read` of it
 * @param message structured-cloned; a `SharedArrayBuffer` in it is shared
 */
export function startWorker(url: URL, message: unknown): void {
  const worker = new Worker(url, { type: "module" });
  worker.postMessage(message);
}

/** In a worker: the message of {@link startWorker}; once `run` returns, the thread ends. */
export function workerMain<T>(run: (message: T) => void): void {
  const scope = globalThis as unknown as {
    onmessage: (event: MessageEvent<T>) => void;
    close(): void;
  };
  scope.onmessage = (event) => {
    run(event.data);
    scope.close();
  };
}
