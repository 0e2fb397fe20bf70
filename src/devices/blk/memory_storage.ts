/**
 * A disk in memory.
 *
 * @module
 */

import { allocate, FallocateMode } from "../../../ffi/file.ts";
import { close } from "../../../ffi/fd.ts";
import { Mapping, memoryFile, resizeFile } from "../../../ffi/mapping.ts";
import type { Span } from "../../memory/span.ts";
import type { Storage } from "./storage.ts";

const PAGE = 4096;

/** Bytes in a memory file: gone with the process, and only as large as what was written. */
export class MemoryStorage implements Storage {
  /** Always false. */
  readonly readOnly = false;
  readonly #fd: number;
  #mapping: Mapping;
  #bytes: Uint8Array;
  #size: number;

  /**
   * A disk of zeros.
   *
   * @param size bytes
   * @throws {OsError}
   */
  constructor(size: number) {
    this.#size = size;
    this.#fd = memoryFile("vhost-user-disk", size);
    this.#mapping = new Mapping(this.#fd, Math.max(PAGE, Math.ceil(size / PAGE) * PAGE));
    this.#bytes = new Uint8Array(this.#mapping.buffer);
  }

  /** Bytes. */
  get size(): number {
    return this.#size;
  }

  /**
   * Grows or shrinks the disk.
   *
   * @param size bytes
   * @throws {OsError}
   */
  resize(size: number): void {
    resizeFile(this.#fd, size);
    const next = new Mapping(this.#fd, Math.max(PAGE, Math.ceil(size / PAGE) * PAGE));
    this.#mapping.unmap();
    this.#mapping = next;
    this.#bytes = new Uint8Array(next.buffer);
    this.#size = size;
  }

  /** Copies to the guest. */
  read(data: Span, position: number): void {
    data.copyFrom(this.#bytes.subarray(position, position + data.byteLength));
  }

  /** Copies from the guest. */
  write(data: Span, position: number): void {
    data.copyTo(this.#bytes.subarray(position, position + data.byteLength));
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
    else this.#bytes.fill(0, position, position + length);
  }

  /** Gives the memory back. */
  close(): void {
    this.#mapping.unmap();
    close(this.#fd);
  }
}
