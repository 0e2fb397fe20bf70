/**
 * Where random bytes come from.
 *
 * @module
 */

import { close, fileStatus, isNonblocking, setNonblocking } from "../../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../../ffi/file.ts";
import { Iovec } from "../../../ffi/iovec.ts";
import { Native } from "../../../ffi/native.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import { readPieces } from "../../../ffi/vector_io.ts";

/** A source of random bytes. What it does is synchronous. */
export interface RandomSource {
  /**
   * Fills bytes of guest memory from their start.
   *
   * @param bytes at most 65536
   * @returns how many were filled; fewer than there are when it has no more for now
   * @throws when it will never have more
   */
  fill(bytes: Uint8Array<ArrayBuffer>): number;
  /** Calls back once when there may be more, after {@link fill} has come up short. A source that never does needs none. */
  whenReady?(callback: () => void): void;
  /** Lets go of what it holds. */
  close?(): void;
}

/** The system's generator: never waits, never ends. */
export class SystemSource implements RandomSource {
  /** {@link RandomSource.fill}. */
  fill(bytes: Uint8Array<ArrayBuffer>): number {
    crypto.getRandomValues(bytes);
    return bytes.length;
  }
}

/** A source that has come to its end: its bytes are not given twice. */
export class SourceEndedError extends Error {
  /** The error's class name. */
  override readonly name = "SourceEndedError";
}

/** Bytes that are read at once. */
const ROOM = 65536;
/** How long to wait for a device that cannot be waited for, ms: `/dev/hwrng`. */
const RETRY = 10;

/** How a {@link FileSource} is opened. */
export interface FileSourceOptions {
  /** A file, device or named pipe. Excludes `fd`. */
  readonly path?: string;
  /** A descriptor of this process, such as 0, the standard input. Stays the caller's. */
  readonly fd?: number;
}

/**
 * A file, a device such as `/dev/hwrng`, or a pipe. A file is read once, from its start to its end, as random bytes that
 * come twice are none.
 */
export class FileSource implements RandomSource {
  readonly #fd: number;
  readonly #name: string;
  readonly #owned: boolean;
  readonly #wasNonblocking: boolean;
  /** Whether it is a pipe in the file system: writers come and go. */
  readonly #named: boolean;
  /** Whether there is no writer at the moment. */
  #mayComeBack = false;
  readonly #reactor = Reactor.shared();
  readonly #room = new Native(ROOM);
  readonly #iovec = new Iovec(1);
  readonly #waiting: (() => void)[] = [];
  #watched = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * Opens it.
   *
   * @throws {OsError} when it cannot be opened
   * @throws {TypeError} for what cannot be read, such as a directory
   */
  constructor({ path, fd }: FileSourceOptions) {
    if ((path === undefined) === (fd === undefined)) {
      throw new TypeError("FileSource: give either path or fd");
    }
    this.#name = path ?? `descriptor ${fd}`;
    this.#owned = path !== undefined;
    this.#fd = fd ?? openFile(path as string, OpenFlag.READ_ONLY | OpenFlag.NONBLOCK);
    const { kind } = fileStatus(this.#fd);
    if (kind === "directory" || kind === "other") {
      if (this.#owned) close(this.#fd);
      throw new TypeError(
        `random bytes come from a file, a device or a pipe; ${this.#name} is none (${kind})`,
      );
    }
    this.#named = this.#owned && kind === "pipe";
    this.#wasNonblocking = isNonblocking(this.#fd);
    setNonblocking(this.#fd);
  }

  /**
   * {@link RandomSource.fill}.
   *
   * @throws {SourceEndedError} at the end of the file
   * @throws {OsError}
   */
  fill(bytes: Uint8Array<ArrayBuffer>): number {
    let done = 0;
    while (done < bytes.length) {
      this.#iovec.clear();
      this.#iovec.push(Number(this.#room.address), Math.min(ROOM, bytes.length - done));
      const length = readPieces(this.#fd, this.#iovec);
      if (length === 0 && done === 0) {
        this.#mayComeBack = this.#named;
        if (this.#mayComeBack) return 0;
        throw new SourceEndedError(`${this.#name} has no random bytes any more: it is at its end`);
      }
      if (length <= 0) break;
      bytes.set(this.#room.bytes.subarray(0, length), done);
      done += length;
    }
    // What the guest knows is nobody else's.
    this.#room.bytes.fill(0, 0, Math.min(ROOM, done));
    return done;
  }

  /** {@link RandomSource.whenReady}. */
  whenReady(callback: () => void): void {
    this.#waiting.push(callback);
    if (this.#watched || this.#timer !== undefined) return;
    // Of a pipe without a writer one would be told without end.
    if (this.#mayComeBack || !this.#watch()) this.#timer = setTimeout(() => this.#ready(), RETRY);
    this.#mayComeBack = false;
  }

  #watch(): boolean {
    try {
      this.#reactor.watch(this.#fd, () => this.#ready());
      return this.#watched = true;
    } catch (error) {
      if (!(error instanceof OsError && error.errno === Errno.EPERM)) throw error;
      return false;
    }
  }

  #ready(): void {
    this.#rest();
    for (const callback of this.#waiting.splice(0)) callback();
  }

  #rest(): void {
    if (this.#watched) this.#reactor.unwatch(this.#fd);
    this.#watched = false;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** {@link RandomSource.close}. */
  close(): void {
    this.#rest();
    this.#waiting.length = 0;
    if (this.#owned) close(this.#fd);
    else setNonblocking(this.#fd, this.#wasNonblocking);
  }
}
