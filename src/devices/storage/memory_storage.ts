/**
 * A disk in memory.
 *
 * @module
 */

import { allocate, FallocateMode } from "../../../ffi/file.ts";
import { close, fileStatus } from "../../../ffi/fd.ts";
import { Mapping, memoryFile, resizeFile } from "../../../ffi/mapping.ts";
import type { Span } from "../../memory/span.ts";
import { SharedSize } from "./shared_size.ts";
import type { Storage, StorageSource } from "./storage.ts";

const PAGE = 4096;

/** A disk in memory, for another thread of the process. */
export interface SharedMemoryDisk {
  /** Which storage it is. */
  readonly kind: "memory";
  /** The memory file; it stays with the one that has made it. */
  readonly fd: number;
  /** Its size, shared. */
  readonly size: SharedArrayBuffer;
}

/** Bytes in a memory file: gone with the process, and only as large as what was written. */
export class MemoryStorage implements Storage {
  /** Always false. */
  readonly readOnly = false;
  /** Always true. */
  readonly volatile = true;
  /** How it is opened in a worker thread. */
  readonly worker: StorageSource;
  readonly #fd: number;
  readonly #owned: boolean;
  readonly #size: SharedSize;
  #mapping: Mapping;
  #bytes: Uint8Array;

  /**
   * A disk of zeros, or another view of one that another thread has made.
   *
   * @param size bytes
   * @throws {OsError}
   */
  constructor(size: number | SharedMemoryDisk) {
    this.#owned = typeof size === "number";
    if (typeof size === "number") {
      this.#size = new SharedSize();
      this.#size.bytes = size;
      this.#fd = memoryFile("vhost-user-disk", size);
    } else {
      this.#size = new SharedSize(size.size);
      this.#fd = size.fd;
    }
    this.worker = {
      module: import.meta.url,
      options: { kind: "memory", fd: this.#fd, size: this.#size.cell } satisfies SharedMemoryDisk,
    };
    this.#mapping = this.#map();
    this.#bytes = new Uint8Array(this.#mapping.buffer);
  }

  #map(): Mapping {
    const { size } = fileStatus(this.#fd);
    return new Mapping(this.#fd, Math.max(PAGE, Math.ceil(size / PAGE) * PAGE));
  }

  /** Bytes. */
  get size(): number {
    return this.#size.bytes;
  }

  /**
   * Grows or shrinks the disk.
   *
   * @param size bytes
   * @throws {OsError}
   */
  resize(size: number): void {
    // The file itself never gets shorter: another thread may be about to touch what is behind its new end.
    if (size < this.size) this.discard(size, this.size - size);
    else if (size > fileStatus(this.#fd).size) resizeFile(this.#fd, size);
    this.#size.bytes = size;
  }

  /** The bytes of a range, which may have come into being since the file was mapped. */
  #range(position: number, length: number): Uint8Array {
    if (position + length > this.#bytes.length) {
      this.#mapping.unmap();
      this.#mapping = this.#map();
      this.#bytes = new Uint8Array(this.#mapping.buffer);
    }
    return this.#bytes.subarray(position, position + length);
  }

  /** Copies to the guest. */
  read(data: Span, position: number): void {
    data.copyFrom(this.#range(position, data.byteLength));
  }

  /** Copies from the guest. */
  write(data: Span, position: number): void {
    data.copyTo(this.#range(position, data.byteLength));
  }

  /** Nothing: there is nothing more durable to write to. */
  flush(): void {}

  /** Gives memory back. */
  discard(position: number, length: number): void {
    allocate(this.#fd, FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE, position, length);
  }

  /** Zeroes a range. */
  writeZeroes(position: number, length: number, mayUnmap: boolean): void {
    if (mayUnmap) this.discard(position, length);
    else this.#range(position, length).fill(0);
  }

  /** Gives the memory back. */
  close(): void {
    this.#mapping.unmap();
    if (this.#owned) close(this.#fd);
  }
}

/** Opens one in another thread, by what the first has said of itself; what belongs to that stays with it. */
export default function open(shared: SharedMemoryDisk): Storage {
  return new MemoryStorage(shared);
}
