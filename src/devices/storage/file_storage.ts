/**
 * A disk image in a file, or a block device.
 *
 * @module
 */

import { blockDeviceSize, close, fileStatus } from "../../../ffi/fd.ts";
import {
  allocate,
  FallocateMode,
  openFile,
  OpenFlag,
  readAt,
  readCached,
  syncData,
  writeAt,
} from "../../../ffi/file.ts";
import { Iovec } from "../../../ffi/iovec.ts";
import { resizeFile } from "../../../ffi/mapping.ts";
import { Native } from "../../../ffi/native.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import { LATER } from "../../backend/device.ts";
import type { Span } from "../../memory/span.ts";
import { Aftermath } from "./aftermath.ts";
import { FileEngine, type Synchronous } from "./file_engine.ts";
import { SharedSize } from "./shared_size.ts";
import { type Completion, SECTOR, type Storage, type StorageSource } from "./storage.ts";

const { PUNCH_HOLE, KEEP_SIZE, ZERO_RANGE } = FallocateMode;
const ZEROS = 65536;

/** An engine, where there can be one. */
function engine(fd: number, now: Synchronous, needed: boolean): FileEngine | undefined {
  try {
    return new FileEngine(fd, now, Reactor.shared());
  } catch (error) {
    if (needed || !(error instanceof OsError)) throw error;
    return undefined;
  }
}

/**
 * Where nobody looks for work, so many reads at a time are done one by one, where the page cache has what is asked for: each
 * is then shown to the driver before the next is done. By the batch, a device is done and asleep before the driver has woken up
 * to make new requests, and the two sleep in turn. With more at a time, a batch is what saves time.
 */
const FEW = 12;

/** How a file is opened and worked on. */
export interface FileOptions {
  /** Whether nothing may be written. */
  readonly readOnly?: boolean;
  /**
   * Whether to go past the page cache (O_DIRECT). Requests that the file cannot take so, for their alignment, go through it.
   */
  readonly direct?: boolean;
  /**
   * `"io_uring"` waits for the file without holding up anything else; `"sync"` holds up the thread. By default, the first
   * where the kernel has it and allows it.
   */
  readonly aio?: "io_uring" | "sync";
}

/** An open file, for another thread of the process. */
export interface SharedFile extends FileOptions {
  /** Its path, for people. */
  readonly path: string;
  /** The descriptor; it stays with the one that has opened it. */
  readonly fd: number;
  /** The same file past the page cache; or once more the same descriptor. */
  readonly directFd: number;
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
  /** The same file past the page cache; or once more the same descriptor. */
  readonly #direct: number;
  readonly #engine: FileEngine | undefined;
  readonly #aftermath: Aftermath | undefined;
  readonly #iovec = new Iovec();
  readonly #size: SharedSize;
  readonly #reactor = Reactor.shared();
  /** The reactor's round, reads in it, and whether there were few in the one before. */
  #round = 0;
  #count = 0;
  #few = true;
  /** Whether it may be known what is in the page cache, and another way is there for what is not. */
  #tells: boolean;
  #zeros: Native | undefined;

  /**
   * Opens a file, or uses one that another thread has opened.
   *
   * @throws {OsError} when it cannot be opened; EINVAL where the file system has no O_DIRECT; ENOSYS or EPERM without io_uring
   * when that is asked for
   * @throws {TypeError} when it is neither a file nor a block device
   */
  constructor(path: string | SharedFile, { readOnly = false, direct = false, aio }: FileOptions = {}) {
    const shared = typeof path === "string" ? undefined : path;
    this.#path = typeof path === "string" ? path : path.path;
    this.#owned = shared === undefined;
    this.#size = new SharedSize(shared?.size);
    this.readOnly = readOnly;
    const flags = readOnly ? OpenFlag.READ_ONLY : OpenFlag.READ_WRITE;
    this.#fd = this.#direct = shared?.fd ?? openFile(this.#path, flags);
    try {
      this.refresh();
      if (direct) this.#direct = shared?.directFd ?? openFile(this.#path, flags | OpenFlag.DIRECT);
      // A synchronous request ends before its process does, but what comes before it may have been another kind.
      if (this.#owned) this.#aftermath = new Aftermath(this.#path, this.#direct);
      if (aio !== "sync") this.#engine = engine(this.#direct, this, aio === "io_uring");
      this.#tells = this.#engine !== undefined && !direct;
    } catch (error) {
      this.#closeFiles();
      throw error;
    }
    this.worker = {
      module: import.meta.url,
      options: {
        readOnly,
        direct,
        aio,
        path: this.#path,
        fd: this.#fd,
        directFd: this.#direct,
        size: this.#size.cell,
      } satisfies SharedFile,
    };
  }

  /**
   * Bytes. A file that ends within a sector is seen with the rest of that as zeros, and grows when it is written there.
   */
  get size(): number {
    return this.#size.bytes;
  }

  /** Whether nothing is to come of what a process that has died has asked of the file. */
  get settled(): boolean {
    return this.#aftermath?.over ?? true;
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

  /** Reads, later where that is possible and pays. */
  read(data: Span, position: number, completion: Completion): void | typeof LATER {
    if (this.#isOneOfFew() && this.#readCached(data, position)) return;
    if (this.#engine?.read(data, position, completion)) return LATER;
    this.readNow(data, position);
  }

  /** Writes, later where that is possible. */
  write(data: Span, position: number, completion: Completion): void | typeof LATER {
    if (this.#engine?.write(data, position, completion)) return LATER;
    this.writeNow(data, position);
  }

  /** Whether to try a read at once: see {@link FEW}. */
  #isOneOfFew(): boolean {
    const { round, sleeps } = this.#reactor;
    if (!sleeps || !this.#tells) return false;
    if (round !== this.#round) {
      this.#few = this.#count <= FEW;
      this.#count = 0;
      this.#round = round;
    }
    this.#count++;
    return this.#few;
  }

  #readCached(data: Span, position: number): boolean {
    const iovec = this.#iovec;
    iovec.clear();
    if (data.toIovec(iovec) < data.byteLength) return false;
    const done = readCached(this.#fd, iovec, position);
    if (done === undefined) this.#tells = false;
    return done === true;
  }

  /** Reads by `preadv`: one call for all segments of a request. */
  readNow(data: Span, position: number): void {
    try {
      this.#read(this.#direct, data, position);
    } catch (error) {
      this.#mayBeAlignment(error);
      this.#read(this.#fd, data, position);
    }
  }

  /** Writes by `pwritev`. */
  writeNow(data: Span, position: number): void {
    try {
      this.#write(this.#direct, data, position);
    } catch (error) {
      this.#mayBeAlignment(error);
      this.#write(this.#fd, data, position);
    }
  }

  /** Rethrows what going through the page cache cannot mend. */
  #mayBeAlignment(error: unknown): void {
    const mended = this.#direct !== this.#fd && error instanceof OsError && error.errno === Errno.EINVAL;
    if (!mended) throw error;
  }

  #read(fd: number, data: Span, position: number): void {
    const iovec = this.#iovec;
    for (let done = 0; done < data.byteLength;) {
      iovec.clear();
      const piece = data.toIovec(iovec, done);
      const got = readAt(fd, iovec, position + done);
      if (got < piece) {
        // The file ends within the last sector, or somebody has cut it off.
        data.clear(done + got);
        return;
      }
      done += piece;
    }
  }

  #write(fd: number, data: Span, position: number): void {
    const iovec = this.#iovec;
    for (let done = 0; done < data.byteLength;) {
      iovec.clear();
      const piece = data.toIovec(iovec, done);
      writeAt(fd, iovec, position + done);
      done += piece;
    }
  }

  /** `fdatasync`. */
  flush(completion: Completion): void | typeof LATER {
    if (this.#engine?.flush(completion)) return LATER;
    syncData(this.#fd);
  }

  /** Punches a hole, where the file system can. */
  async discard(position: number, length: number): Promise<void> {
    await this.#allocate(PUNCH_HOLE | KEEP_SIZE, position, length);
  }

  /** Zeroes a range: by a hole when the room may be given back, else by a range of zeros, else by writing them. */
  async writeZeroes(position: number, length: number, mayUnmap: boolean): Promise<void> {
    if (mayUnmap && await this.#allocate(PUNCH_HOLE | KEEP_SIZE, position, length)) return;
    if (await this.#allocate(ZERO_RANGE | KEEP_SIZE, position, length)) return;
    this.#writeZeros(position, length);
  }

  #allocate(mode: number, position: number, length: number): boolean | Promise<boolean> {
    return this.#engine?.allocate(mode, position, length) ?? allocate(this.#fd, mode, position, length);
  }

  #writeZeros(position: number, length: number): void {
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

  /** Closes the file, when what is under way is done. */
  close(): void {
    this.#engine?.close();
    this.#closeFiles();
  }

  #closeFiles(): void {
    if (!this.#owned) return;
    if (this.#direct !== this.#fd) close(this.#direct);
    close(this.#fd);
    this.#aftermath?.close();
  }
}

/** Opens one in another thread, by what the first has said of itself; what belongs to that stays with it. */
export default function open(shared: SharedFile): Storage {
  return new FileStorage(shared, shared);
}
