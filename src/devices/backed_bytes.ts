/**
 * The content of a memory part, kept in a file.
 *
 * @module
 */

import { close, fileStatus } from "../../ffi/fd.ts";
import { openFile, OpenFlag, readAt, writeAt } from "../../ffi/file.ts";
import { Iovec } from "../../ffi/iovec.ts";
import { Native } from "../../ffi/native.ts";

/** The largest file that is taken into memory, bytes. */
const MAX_SIZE = 256 * 2 ** 20;

/** Bytes of a file in memory, which are written back on demand. */
export class BackedBytes {
  /** The bytes; change them, then {@link save}. */
  readonly data: Uint8Array;
  readonly #native: Native;
  readonly #fd: number;
  readonly #iovec = new Iovec(1);
  #closed = false;

  /**
   * Reads a file.
   *
   * @throws {OsError} when it cannot be opened for reading and writing
   * @throws {RangeError} when it is empty, or larger than any such part
   */
  constructor(path: string) {
    const fd = this.#fd = openFile(path, OpenFlag.READ_WRITE);
    try {
      const { kind, size } = fileStatus(fd);
      if (kind !== "file" || size < 1 || size > MAX_SIZE) {
        throw new RangeError(`${path} must be a file of 1 to ${MAX_SIZE} bytes, got a ${kind} of ${size}`);
      }
      this.#native = new Native(size);
      this.data = this.#native.bytes;
      readAt(fd, this.#range(0, size), 0);
    } catch (error) {
      close(fd);
      throw error;
    }
  }

  #range(offset: number, length: number): Iovec {
    this.#iovec.clear();
    this.#iovec.push(Number(this.#native.address) + offset, length);
    return this.#iovec;
  }

  /**
   * Writes a range to the file.
   *
   * @throws {OsError}
   */
  save(offset: number, length: number): void {
    writeAt(this.#fd, this.#range(offset, length), offset);
  }

  /** Closes the file. */
  close(): void {
    if (!this.#closed) close(this.#fd);
    this.#closed = true;
  }
}
