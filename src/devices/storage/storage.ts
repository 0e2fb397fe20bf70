/**
 * Where a disk's bytes are.
 *
 * @module
 */

import { LATER } from "../../backend/device.ts";
import type { Span } from "../../memory/span.ts";

/** Bytes of a sector: positions and sizes of a storage are multiples of it. */
export const SECTOR = 512;

/** Waits for a request that a storage does later. */
export interface Completion {
  /** It is done; or has failed, when there is an error. Call it once, after the storage's function has returned. */
  done(error?: unknown): void;
}

/**
 * The bytes behind a disk. Each function is either synchronous or returns a promise; the disk serves several requests at
 * once while promises are pending. Positions and lengths are bytes, multiples of 512 within {@link size}. A function that
 * throws, or a promise that rejects, gives the guest an I/O error.
 *
 * A promise costs garbage and a turn of the event loop. What is done very often can return {@link LATER} in place of one,
 * and call the {@link Completion} when it is done; it must be ready to keep `data` until then.
 *
 * @example A disk of zeros that counts reads
 * ```ts
 * import type { Storage } from "@vhost/user/devices/blk";
 *
 * let reads = 0;
 * export const zeros: Storage = {
 *   size: 1 << 30,
 *   readOnly: true,
 *   read(data) {
 *     reads++;
 *     data.clear();
 *   },
 *   write() {},
 *   flush() {},
 *   close() {},
 * };
 * ```
 */
export interface Storage {
  /** How the same bytes are opened in a worker thread. Absent: the disk cannot be served with workers. */
  readonly worker?: StorageSource;
  /** Whether the bytes are gone with the process, so that no other can go on with them. */
  readonly volatile?: boolean;
  /** Bytes. May change; tell the disk by `resized()`. */
  readonly size: number;
  /** Whether nothing may be written. */
  readonly readOnly: boolean;
  /** Reads: fills all of `data` from `position`. */
  read(data: Span, position: number, completion: Completion): void | Promise<void> | typeof LATER;
  /** Writes all of `data` to `position`. */
  write(data: Span, position: number, completion: Completion): void | Promise<void> | typeof LATER;
  /** Makes everything durable that was written before. */
  flush(completion: Completion): void | Promise<void> | typeof LATER;
  /** The guest does not need these bytes any more; they may read as anything. Absent when it would have no use. */
  discard?(position: number, length: number): void | Promise<void>;
  /** Sets bytes to zero; with `mayUnmap` the room may be given back. Absent: the guest writes zeros itself. */
  writeZeroes?(position: number, length: number, mayUnmap: boolean): void | Promise<void>;
  /**
   * Whether nothing that somebody who is gone has asked for may still be carried out: a front-end is not served before.
   * Absent: always so.
   */
  readonly settled?: boolean;
  /** Lets go of what it holds. */
  close(): void;
}

/** How a storage is opened in a worker thread, once more. */
export interface StorageSource {
  /** URL of a module whose default export is a function that opens it. */
  readonly module: string | URL;
  /** What the function is called with: anything that can be cloned. Descriptors are the same numbers in every thread. */
  readonly options?: unknown;
}

/** One call of a storage's function. */
export type Deferrable = (completion: Completion) => void | Promise<void> | typeof LATER;

/** Such a call as a promise, however the storage tells that it is done. For what is not done often. */
export async function promised(act: Deferrable): Promise<void> {
  let done: (error?: unknown) => void = () => {};
  const completed = new Promise<void>((resolve, reject) => {
    done = (error) => error === undefined ? resolve() : reject(error);
  });
  const pending = act({ done });
  await (pending === LATER ? completed : pending);
}
