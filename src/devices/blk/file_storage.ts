/**
 * A disk image in a file, or a block device.
 *
 * @module
 */

import { blockDeviceSize, close, fileStatus } from "../../../ffi/fd.ts";
import { allocate, FallocateMode, openFile, OpenFlag, readAt, syncData, writeAt } from "../../../ffi/file.ts";
import { Iovec } from "../../../ffi/iovec.ts";
import { resizeFile } from "../../../ffi/mapping.ts";
import { Native } from "../../../ffi/native.ts";
import type { Span } from "../../memory/span.ts";
import { SECTOR } from "./layout.ts";
import type { Storage } from "./storage.ts";

const { PUNCH_HOLE, KEEP_SIZE, ZERO_RANGE } = FallocateMode;
const ZEROS = 65536;

/** Bytes in a raw file or on a block device, moved between it and the guest by address. */
export class FileStorage implements Storage {
  /** Whether nothing may be written. */
  readonly readOnly: boolean;
  readonly #path: string;
  readonly #fd: number;
  readonly #iovec = new Iovec();
  #size = 0;
  #zeros: Native | undefined;

  /**
   * Opens a file.
   *
   * @throws {OsError} when it cannot be opened
   * @throws {TypeError} when it is neither a file nor a block device
   */
  constructor(path: string, options: { readonly readOnly?: boolean } = {}) {
    this.#path = path;
    this.readOnly = options.readOnly ?? false;
    this.#fd = openFile(path, this.readOnly ? OpenFlag.READ_ONLY : OpenFlag.READ_WRITE);
    try {
      this.refresh();
    } catch (error) {
      close(this.#fd);
      throw error;
    }
  }

  /**
   * Bytes. A file that ends within a sector is seen with the rest of that as zeros, and grows when it is written there.
   */
  get size(): number {
    return this.#size;
  }

  /** Looks at the file's size again, after somebody else has changed it. */
  refresh(): void {
    const { kind, size } = fileStatus(this.#fd);
    if (kind !== "file" && kind !== "block device") {
      throw new TypeError(`${this.#path} is a ${kind}; a disk needs a file or a block device`);
    }
    const bytes = kind === "file" ? size : blockDeviceSize(this.#fd);
    this.#size = Math.ceil(bytes / SECTOR) * SECTOR;
  }

  /**
   * Grows or shrinks the file.
   *
   * @param size bytes
   * @throws {OsError} for a block device, or without room
   */
  resize(size: number): void {
    resizeFile(this.#fd, size);
    this.refresh();
  }

  /** Reads by `preadv`: one call for all segments of a request. */
  read(data: Span, position: number): void {
    const iovec = this.#iovec;
    for (let done = 0; done < data.byteLength;) {
      iovec.clear();
      const piece = data.toIovec(iovec, done);
      const got = readAt(this.#fd, iovec, position + done);
      if (got < piece) {
        // The file ends within the last sector, or somebody has cut it off.
        data.clear(done + got);
        return;
      }
      done += piece;
    }
  }

  /** Writes by `pwritev`. */
  write(data: Span, position: number): void {
    const iovec = this.#iovec;
    for (let done = 0; done < data.byteLength;) {
      iovec.clear();
      const piece = data.toIovec(iovec, done);
      writeAt(this.#fd, iovec, position + done);
      done += piece;
    }
  }

  /** `fdatasync`. */
  flush(): void {
    syncData(this.#fd);
  }

  /** Punches a hole, where the file system can. */
  discard(position: number, length: number): void {
    allocate(this.#fd, PUNCH_HOLE | KEEP_SIZE, position, length);
  }

  /** Zeroes a range: by a hole when the room may be given back, else by a range of zeros, else by writing them. */
  writeZeroes(position: number, length: number, mayUnmap: boolean): void {
    if (mayUnmap && allocate(this.#fd, PUNCH_HOLE | KEEP_SIZE, position, length)) return;
    if (allocate(this.#fd, ZERO_RANGE | KEEP_SIZE, position, length)) return;
    const zeros = this.#zeros ??= new Native(ZEROS);
    const iovec = this.#iovec;
    for (let done = 0; done < length;) {
      iovec.clear();
      while (!iovec.full && done + iovec.byteLength < length) {
        iovec.push(Number(zeros.address), Math.min(ZEROS, length - done - iovec.byteLength));
      }
      const piece = iovec.byteLength;
      writeAt(this.#fd, iovec, position + done);
      done += piece;
    }
  }

  /** Closes the file. */
  close(): void {
    close(this.#fd);
  }
}
