/**
 * Chunks that are written go elsewhere than where the others are read from.
 *
 * @module
 */

import type { ChunkStore } from "./chunk_store.ts";
import { StorageAccess } from "./storage_access.ts";
import type { Storage } from "./storage.ts";

const BLOCK = 4096;
const BLOCK_BITS = 8 * BLOCK;
const MAGIC = "vhost-user overlay 1\n";
const MAX_TEXT = 3072;

/** How an overlay behaves. */
export interface OverlayOptions {
  /**
   * Which content lies below, such as the address of a file and its version. An overlay that was made over another content is
   * refused. At most 3072 bytes of UTF-8.
   */
  readonly identity: string;
  /** Whether chunks that are read are copied, so that they need not be read below again. */
  readonly copyOnRead?: boolean;
}

/** Where things are in an overlay. */
interface Layout {
  readonly chunks: number;
  readonly map: number;
  readonly data: number;
  readonly size: number;
}

function layoutOf({ size, chunkSize }: Pick<ChunkStore, "size" | "chunkSize">): Layout {
  const chunks = Math.ceil(size / chunkSize);
  const data = BLOCK + Math.ceil(chunks / BLOCK_BITS) * BLOCK;
  return { chunks, map: BLOCK, data, size: data + size };
}

function headerOf({ size, chunkSize }: ChunkStore, identity: string): Uint8Array {
  const text = new TextEncoder().encode(`${MAGIC}${size} ${chunkSize}\n${identity}\n`);
  if (text.length > MAX_TEXT + 64 || identity.includes("\0")) {
    throw new RangeError(`identity must have ${MAX_TEXT} bytes at most, and no zero byte`);
  }
  const header = new Uint8Array(BLOCK);
  header.set(text);
  return header;
}

const same = (a: Uint8Array, b: Uint8Array): boolean => a.every((byte, i) => byte === b[i]);

function textOf(header: Uint8Array): string {
  const end = header.indexOf(0);
  return new TextDecoder().decode(header.subarray(0, end < 0 ? undefined : end));
}

/**
 * Copy on write: a store whose chunks come from a `base` that never changes, until they are written; then they are in `upper`, a
 * storage such as a file. What was written outlives the process, and is there when the same file is laid over the same base again.
 *
 * `upper` holds, in blocks of 4096 bytes: a header, which is text (`vhost-user overlay 1`, size and chunk size, the identity of
 * what is below) and zeros; a map with one bit for each chunk, the lowest bit of a byte first, set when the chunk is here; and the
 * chunks, each at its place, so that a file has holes where the base is read.
 *
 * **After a crash** it has what a disk has: a write that is done outlives the process, one that was flushed the machine. For that
 * the first write to a chunk waits until the chunk, as a whole, is durable in `upper`; those under way at the same time wait
 * together.
 */
export class OverlayChunks implements ChunkStore {
  /** Bytes of the disk. */
  readonly size: number;
  /** Bytes of a chunk. */
  readonly chunkSize: number;
  readonly #base: ChunkStore;
  readonly #upper: Storage;
  readonly #access: StorageAccess;
  readonly #copyOnRead: boolean;
  readonly #layout: Layout;
  /** Chunks that are in `upper`; and those of which it says so. */
  readonly #present: Uint8Array;
  readonly #recorded: Uint8Array;
  /** Chunks to be recorded, by the commit that has not begun yet. */
  #toRecord: number[] = [];
  #next: Promise<void> | undefined;
  #running: Promise<void> = Promise.resolve();

  /** Bytes that `upper` must have. */
  static sizeFor(base: Pick<ChunkStore, "size" | "chunkSize">): number {
    return layoutOf(base).size;
  }

  /**
   * Lays `upper` over `base`; both belong to the result, also when it fails. An `upper` whose first block is zeros is a new one.
   *
   * @throws {TypeError} when `upper` is something else, or was made over something else
   * @throws {RangeError} when it is too small
   */
  static async open(base: ChunkStore, upper: Storage, options: OverlayOptions): Promise<OverlayChunks> {
    const access = new StorageAccess(upper);
    try {
      return await OverlayChunks.#opened(base, access, options);
    } catch (error) {
      access.close();
      upper.close();
      base.close();
      throw error;
    }
  }

  static async #opened(
    base: ChunkStore,
    access: StorageAccess,
    options: OverlayOptions,
  ): Promise<OverlayChunks> {
    // What a process that has died has begun could still come, and change the map.
    while (access.storage.settled === false) await new Promise((resolve) => setTimeout(resolve, 10));
    const layout = layoutOf(base);
    const header = headerOf(base, options.identity);
    if (access.storage.size < layout.size) {
      throw new RangeError(`an overlay must have ${layout.size} bytes at least, got ${access.storage.size}`);
    }
    const found = new Uint8Array(BLOCK);
    await access.read(0, found);
    const map = new Uint8Array(layout.data - layout.map);
    if (found.every((byte) => byte === 0)) {
      // The header comes last: half a map is none.
      await access.write(layout.map, map);
      await access.flush();
      await access.write(0, header);
      await access.flush();
    } else if (!same(found, header)) {
      const text = textOf(found);
      if (!text.startsWith(MAGIC)) throw new TypeError("there is something else where the overlay should be");
      throw new TypeError(
        `the overlay was made over something else: it needs ${
          JSON.stringify(text.slice(MAGIC.length).trim())
        }, got ${JSON.stringify(textOf(header).slice(MAGIC.length).trim())}`,
      );
    } else {
      await access.read(layout.map, map);
    }
    return new OverlayChunks(base, access, options, layout, map);
  }

  private constructor(
    base: ChunkStore,
    access: StorageAccess,
    { copyOnRead = false }: OverlayOptions,
    layout: Layout,
    map: Uint8Array,
  ) {
    this.#base = base;
    this.#upper = access.storage;
    this.#access = access;
    this.#copyOnRead = copyOnRead;
    this.size = base.size;
    this.chunkSize = base.chunkSize;
    this.#layout = layout;
    this.#recorded = map;
    this.#present = map.slice();
  }

  /** Whether `upper` is. */
  get volatile(): boolean {
    return this.#upper.volatile ?? false;
  }

  /** Whether both of what it is made of are. */
  get settled(): boolean {
    return (this.#base.settled ?? true) && (this.#upper.settled ?? true);
  }

  /** Chunks that are not read below any more. */
  get present(): number {
    let count = 0;
    for (let index = 0; index < this.#layout.chunks; index++) if (has(this.#present, index)) count++;
    return count;
  }

  /** Reads a chunk from where it is. */
  async read(index: number, data: Uint8Array<ArrayBuffer>): Promise<void> {
    const at = this.#at(index);
    if (has(this.#present, index)) return await this.#access.read(at, data);
    await this.#base.read(index, data);
    if (!this.#copyOnRead) return;
    try {
      await this.#access.write(at, data);
    } catch {
      // Without room for a copy, it is read below again.
      return;
    }
    set(this.#present, index);
    this.#toRecord.push(index);
  }

  /** Writes to `upper`: what has changed, or all of it for the first time. */
  async write(index: number, data: Uint8Array<ArrayBuffer>, from: number, to: number): Promise<void> {
    const at = this.#at(index);
    if (has(this.#present, index)) await this.#access.write(at + from, data.subarray(from, to));
    else await this.#access.write(at, data);
    await this.#keep(index);
  }

  /** Zeroes a chunk, by a hole where the storage makes some. */
  async erase(index: number): Promise<void> {
    const length = Math.min(this.chunkSize, this.size - index * this.chunkSize);
    await this.#access.writeZeroes(this.#at(index), length);
    await this.#keep(index);
  }

  /** Makes all of it durable. */
  async flush(): Promise<void> {
    if (this.#toRecord.length > 0) await this.#commit();
    await this.#access.flush();
  }

  /** Closes both of what it is made of. */
  close(): void {
    this.#access.close();
    this.#upper.close();
    this.#base.close();
  }

  #at(index: number): number {
    return this.#layout.data + index * this.chunkSize;
  }

  /** A chunk is in `upper`, as far as this process goes; has `upper` know it. */
  async #keep(index: number): Promise<void> {
    set(this.#present, index);
    if (has(this.#recorded, index)) return;
    this.#toRecord.push(index);
    await this.#commit();
  }

  /** Records all chunks that wait for it; those that come while it does are recorded together after it. */
  #commit(): Promise<void> {
    return this.#next ??= this.#after(this.#running);
  }

  async #after(running: Promise<void>): Promise<void> {
    try {
      await running;
    } catch {
      // Whoever waited for that one is told.
    }
    this.#running = this.#next as Promise<void>;
    this.#next = undefined;
    const chunks = this.#toRecord;
    this.#toRecord = [];
    try {
      await this.#record(chunks);
    } catch (error) {
      this.#toRecord = chunks.concat(this.#toRecord);
      throw error;
    }
  }

  async #record(chunks: readonly number[]): Promise<void> {
    // After a loss of power, a chunk that the map names must be there.
    await this.#access.flush();
    const blocks = new Map<number, Uint8Array>();
    for (const index of chunks) {
      const at = Math.floor(index / BLOCK_BITS) * BLOCK;
      const block = blocks.get(at) ?? this.#recorded.slice(at, at + BLOCK);
      block[(index >> 3) - at] |= 1 << (index & 7);
      blocks.set(at, block);
    }
    for (const [at, block] of blocks) {
      await this.#access.write(this.#layout.map + at, block);
      this.#recorded.set(block, at);
    }
  }
}

function has(map: Uint8Array, index: number): boolean {
  return (map[index >> 3] & 1 << (index & 7)) !== 0;
}

function set(map: Uint8Array, index: number): void {
  map[index >> 3] |= 1 << (index & 7);
}
