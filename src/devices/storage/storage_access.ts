/**
 * Reading and writing a storage with bytes of this process.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import { memoryFile } from "../../../ffi/mapping.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import { Region } from "../../memory/region.ts";
import { Segments } from "../../memory/segments.ts";
import { Span } from "../../memory/span.ts";
import { type Deferrable, promised, type Storage } from "./storage.ts";

/** Bytes that are moved at once. */
const PIECE = 256 * 1024;

/** Memory that a storage can read and write by its address, as it does a guest's. */
class Bounce {
  readonly region: Region;
  readonly #segments = new Segments();
  readonly #span = new Span();

  constructor(byteLength: number) {
    const fd = memoryFile("vhost-user-storage", byteLength);
    try {
      this.region = new Region({ guestAddress: 0, size: byteLength, userAddress: 0, mmapOffset: 0 }, fd);
    } finally {
      close(fd);
    }
  }

  span(length: number): Span {
    this.#segments.clear();
    this.#segments.push(this.region, 0, length);
    return this.#span.set(this.#segments, 0, length);
  }
}

/** Has a storage do something, whether or not something is being served that keeps the process going. */
async function waited(act: Deferrable): Promise<void> {
  const reactor = Reactor.shared();
  reactor.deferred();
  try {
    await promised(act);
  } finally {
    reactor.completed();
  }
}

/**
 * Lets a storage be used by what is no guest: another storage that is laid over it, a program that looks at a disk. Positions and
 * lengths are multiples of 512 bytes, as for the storage. The storage stays the caller's.
 *
 * @example
 * ```ts
 * import { MemoryStorage, StorageAccess } from "@vhost/user/devices/blk";
 *
 * const storage = new MemoryStorage(1 << 20);
 * const access = new StorageAccess(storage);
 * await access.write(512, new TextEncoder().encode("a sector".padEnd(512)));
 * const sector = new Uint8Array(512);
 * await access.read(512, sector);
 * access.close();
 * storage.close();
 * ```
 */
export class StorageAccess {
  /** The storage. */
  readonly storage: Storage;
  readonly #free: Bounce[] = [];
  /** Operations under way. */
  #busy = 0;
  #closed = false;

  /** Access to a storage. */
  constructor(storage: Storage) {
    this.storage = storage;
  }

  /**
   * Fills `bytes` from a position.
   *
   * @throws {RangeError} past the end
   */
  async read(position: number, bytes: Uint8Array): Promise<void> {
    await this.#pieces(position, bytes, async (bounce, piece, at) => {
      const span = bounce.span(piece.length);
      await waited((completion) => this.storage.read(span, at, completion));
      piece.set(bounce.region.bytes.subarray(0, piece.length));
    });
  }

  /**
   * Writes `bytes` to a position.
   *
   * @throws {RangeError} past the end
   */
  async write(position: number, bytes: Uint8Array): Promise<void> {
    await this.#pieces(position, bytes, async (bounce, piece, at) => {
      const span = bounce.span(piece.length);
      bounce.region.bytes.set(piece);
      await waited((completion) => this.storage.write(span, at, completion));
    });
  }

  /** Zeroes a range, and gives its room back where the storage can; by writing zeros where it cannot. */
  async writeZeroes(position: number, length: number): Promise<void> {
    const { storage } = this;
    this.#check(position, length);
    if (storage.writeZeroes === undefined) {
      const zeros = new Uint8Array(Math.min(length, PIECE));
      for (let done = 0; done < length; done += PIECE) {
        await this.write(position + done, zeros.subarray(0, length - done));
      }
    } else await waited(() => storage.writeZeroes?.(position, length, true));
  }

  /** Makes durable what was written before. */
  async flush(): Promise<void> {
    await waited((completion) => this.storage.flush(completion));
  }

  /** Gives its memory back, as soon as nothing is under way. */
  close(): void {
    this.#closed = true;
    if (this.#busy > 0) return;
    for (let bounce = this.#free.pop(); bounce !== undefined; bounce = this.#free.pop()) {
      bounce.region.retire();
    }
  }

  #check(position: number, length: number): void {
    if (position < 0 || position + length > this.storage.size) {
      throw new RangeError(`${length} bytes at ${position}: the storage has ${this.storage.size} bytes`);
    }
    if (this.#closed) throw new Error("the access is closed");
  }

  async #pieces(
    position: number,
    bytes: Uint8Array,
    act: (bounce: Bounce, piece: Uint8Array, at: number) => Promise<void>,
  ): Promise<void> {
    this.#check(position, bytes.length);
    const bounce = this.#free.pop() ?? new Bounce(PIECE);
    this.#busy++;
    try {
      for (let done = 0; done < bytes.length; done += PIECE) {
        await act(bounce, bytes.subarray(done, done + PIECE), position + done);
      }
    } finally {
      this.#busy--;
      this.#free.push(bounce);
      if (this.#closed) this.close();
    }
  }
}
