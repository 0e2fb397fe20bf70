/**
 * Pipes, for what has an end: written or read as a whole, beside everything else.
 *
 * @module
 */

import { libc } from "./deno.ts";
import { EpollEvent } from "./epoll.ts";
import { close, fileStatus, readBytes, setNonblocking, writeBytes } from "./fd.ts";
import { Native } from "./native.ts";
import { check } from "./os_error.ts";
import type { Reactor } from "./reactor.ts";

const O_CLOEXEC = 0o2000000;
/** Bytes that are read at once, and how often before others have their turn. */
const PIECE = 4096;
const BURST = 64;

/**
 * The two ends of a new pipe: to read from, to write to. The caller owns both.
 *
 * @throws {OsError}
 */
export function pipe(): [read: number, write: number] {
  const ends = new Native(8);
  check(libc.pipe2(ends.address, O_CLOEXEC), "pipe2", "making a pipe");
  return [ends.get32(0), ends.get32(4)];
}

/** An end of a pipe, or of a socket, that is used without holding anybody up. */
export class PipeEnd {
  readonly #fd: number;
  readonly #reactor: Reactor;
  #fail: ((reason: Error) => void) | undefined;
  #closed: Error | undefined;

  /**
   * Takes a descriptor over.
   *
   * @throws {RangeError} for anything but a pipe and a socket; it is closed then
   */
  constructor(fd: number, reactor: Reactor) {
    this.#fd = fd;
    this.#reactor = reactor;
    try {
      const { kind } = fileStatus(fd);
      if (kind !== "pipe" && kind !== "socket") {
        throw new RangeError(`descriptor must be a pipe or a socket, got a ${kind}`);
      }
      setNonblocking(fd);
    } catch (error) {
      close(fd);
      throw error;
    }
  }

  /**
   * Reads until the other end has closed.
   *
   * @param limit bytes; reading stops as soon as there are more, so that a longer result says that there was no end
   * @throws {OsError}
   */
  async readToEnd(limit: number): Promise<Uint8Array<ArrayBuffer>> {
    const pieces: Uint8Array[] = [];
    let length = 0;
    let paused = 0;
    while (length <= limit) {
      // A writer that is as fast as we are must not keep everyone else waiting.
      const pause = pieces.length >= paused + BURST;
      const piece = this.#closed === undefined && !pause ? readBytes(this.#fd, PIECE, false) : null;
      if (piece === null) {
        paused = pieces.length;
        await this.#ready(EpollEvent.IN);
        continue;
      }
      if (piece.length === 0) break;
      pieces.push(piece);
      length += piece.length;
    }
    const whole = new Uint8Array(length);
    let at = 0;
    for (const piece of pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    return whole;
  }

  /**
   * Writes all bytes. The other end sees the end after {@link close}.
   *
   * @throws {OsError} when nobody reads them
   */
  async writeAll(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const written = this.#closed === undefined ? writeBytes(this.#fd, bytes.subarray(at), false) : null;
      if (written === null) await this.#ready(EpollEvent.OUT);
      else at += written;
    }
  }

  #ready(events: number): Promise<void> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      this.#reactor.watch(this.#fd, () => {
        this.#reactor.unwatch(this.#fd);
        this.#fail = undefined;
        resolve();
      }, events);
    });
  }

  /** Closes it, once. Who still reads or writes fails with the reason. */
  close(reason: Error = new Error("the pipe is closed")): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.#reactor.unwatch(this.#fd);
    close(this.#fd);
    this.#fail?.(reason);
  }
}
