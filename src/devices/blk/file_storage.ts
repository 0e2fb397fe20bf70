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
import { SharedSize } from "./shared_size.ts";
import type { Storage, StorageSource } from "./storage.ts";

const { PUNCH_HOLE, KEEP_SIZE, ZERO_RANGE } = FallocateMode;
const ZEROS = 65536;

/** An open file, for another thread of the process. */
export interface SharedFile {
  /** Which storage it is. */
  readonly kind: "file";
  /** Its path, for people. */
  readonly path: string;
  /** The descriptor; it stays with the one that has opened it. */
  readonly fd: number;
  /** Whether nothing may be written. */
  readonly readOnly: boolean;
  /** Its size, shared. */
  readonly size: SharedArrayBuffer;
}

/** Bytes in a raw file or on a block device, moved between it and the guest by address. */
export class FileStorage implements Storage {
  /** Whether nothing may be written. */
  readonly readOnly: boolean;
  /** How it is opened in a worker thread. */
  readonly worker: StorageSource;
  readonly #path: string;
  readonly #fd: number;
  readonly #owned: boolean;
  readonly #size: SharedSize;
  readonly #iovec = new Iovec();
  #zeros: Native | undefined;

  /**
   * Opens a file, or uses one that another thread has opened.
   *
   * @throws {OsError} when it cannot be opened
   * @throws {TypeError} when it is neither a file nor a block device
   */
  constructor(path: string | SharedFile, options: { readonly readOnly?: boolean } = {}) {
    this.#owned = typeof path === "string";
    if (typeof path === "string") {
      this.#path = path;
      this.readOnly = options.readOnly ?? false;
      this.#size = new SharedSize();
      this.#fd = openFile(path, this.readOnly ? OpenFlag.READ_ONLY : OpenFlag.READ_WRITE);
      try {
        this.refresh();
      } catch (error) {
        close(this.#fd);
        throw error;
      }
    } else {
      this.#path = path.path;
      this.readOnly = path.readOnly;
      this.#size = new SharedSize(path.size);
      this.#fd = path.fd;
    }
    const shared: SharedFile = {
      kind: "file",
      path: this.#path,
      fd: this.#fd,
      readOnly: this.readOnly,
      size: this.#size.cell,
    };
    this.worker = { module: import.meta.url, options: shared };
  }

  /**
   * Bytes. A file that ends within a sector is seen with the rest of that as zeros, and grows when it is written there.
   */
  get size(): number {
    return this.#size.bytes;
  }

  /** Looks at the file's size again, after somebody else has changed it. */
  refresh(): void {
    const { kind, size } = fileStatus(this.#fd);
    if (kind !== "file" && kind !== "block device") {
      throw new TypeError(`${this.#path} is a ${kind}; a disk needs a file or a block device`);
    }
    const bytes = kind === "file" ? size : blockDeviceSize(this.#fd);
    this.#size.bytes = Math.ceil(bytes / SECTOR) * SECTOR;
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
    if (this.#owned) close(this.#fd);
  }
}

/** Opens one in another thread, by what the first has said of itself; what belongs to that stays with it. */
export default function open(shared: SharedFile): Storage {
  return new FileStorage(shared);
}
