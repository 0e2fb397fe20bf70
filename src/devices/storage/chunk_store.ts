/**
 * Where the bytes of a disk are, when they come and go in pieces of one size.
 *
 * @module
 */

/**
 * A store of chunks: objects, ranges of a file on a server, blocks that are encrypted as a whole. {@link ChunkedStorage} makes a
 * disk of it, and sees to everything that has to do with several requests at once: of one chunk there is never more than one
 * operation under way, and never more than {@link ChunkedOptions.concurrency} of all.
 *
 * Chunk `index` is the bytes of the disk from `index * chunkSize`; the last one ends with the disk. What a function throws, or its
 * promise rejects with, fails the requests that wait for it and nothing else.
 *
 * @example A disk of which each chunk is made when it is read
 * ```ts
 * import { ChunkedStorage, type ChunkStore } from "@vhost/user/devices/blk";
 *
 * const numbers: ChunkStore = {
 *   size: 1 << 30,
 *   chunkSize: 4096,
 *   readOnly: true,
 *   read: (index, data) => void data.fill(index & 0xff),
 *   close() {},
 * };
 * export const storage = new ChunkedStorage(numbers);
 * ```
 */
export interface ChunkStore {
  /** Bytes of the disk, a multiple of 512. Does not change. */
  readonly size: number;
  /** Bytes of a chunk, a multiple of 512. Does not change. */
  readonly chunkSize: number;
  /** Whether nothing may be written: there is no `write` then. */
  readonly readOnly?: boolean;
  /** As {@link Storage.volatile}. */
  readonly volatile?: boolean;
  /** As {@link Storage.settled}. */
  readonly settled?: boolean;
  /** Fills all of `data` with a chunk. */
  read(index: number, data: Uint8Array<ArrayBuffer>): void | Promise<void>;
  /**
   * Stores a chunk. `data` is all of it, and does not change before the function is done; only bytes `from` up to `to` are not
   * what was read or stored last. A process that starts after the function is done reads these bytes, unless the machine has
   * failed meanwhile.
   */
  write?(index: number, data: Uint8Array<ArrayBuffer>, from: number, to: number): void | Promise<void>;
  /** Makes a chunk read as zeros, and gives its room back. Absent: guests write zeros. */
  erase?(index: number): void | Promise<void>;
  /** Makes durable what was stored before. Absent: it always is. */
  flush?(): void | Promise<void>;
  /** Lets go of what it holds. */
  close(): void;
}
