/**
 * Lines to a descriptor, without ever waiting for whoever reads them.
 *
 * @module
 */

import { Epoll, EpollEvent } from "../../../ffi/epoll.ts";
import { writeBytes } from "../../../ffi/fd.ts";
import { OsError } from "../../../ffi/os_error.ts";
import type { Reactor } from "../../../ffi/reactor.ts";

/** A pipe that can be written to takes this much without waiting (`pipe(7)`, PIPE_BUF). */
const PIECE = 4096;

/** How a {@link LineWriter} tells what it could not write. */
export interface LineWriterOptions {
  /** Bytes that may wait; 32 MiB by default. */
  readonly room?: number;
  /** The line in place of others for which there was no room. */
  lost(lines: number): string;
  /** Nobody reads any more, and nobody will. Called once. */
  onGone(error: unknown): void;
}

/**
 * Writes lines. When the reader is slow they wait here, as a virtual machine must not stand still because somebody looks at
 * one screen of its trace.
 */
export class LineWriter {
  readonly #fd: number;
  readonly #reactor: Reactor;
  readonly #options: LineWriterOptions;
  readonly #room: number;
  /** Tells when there is room; none for a file, which always has. */
  readonly #epoll: Epoll | undefined;
  readonly #encoder = new TextEncoder();
  #waiting: Uint8Array[] = [];
  #bytes = 0;
  #lost = 0;
  #watching = false;
  #gone = false;
  #onEmpty: () => void = () => {};

  /** Writes to a descriptor, which stays the caller's. */
  constructor(fd: number, reactor: Reactor, options: LineWriterOptions) {
    this.#fd = fd;
    this.#reactor = reactor;
    this.#options = options;
    this.#room = options.room ?? 32 << 20;
    const epoll = new Epoll();
    try {
      epoll.add(fd, EpollEvent.OUT);
      this.#epoll = epoll;
    } catch (error) {
      epoll.close();
      // A regular file cannot be waited for, and need not be.
      if (!(error instanceof OsError) || error.code !== "EPERM") throw error;
    }
  }

  /** Writes a line, now or when there is room. */
  write(line: string): void {
    if (this.#gone) return;
    if (this.#bytes > this.#room) {
      this.#lost++;
      return;
    }
    this.#push(line);
    if (!this.#watching) this.#flush();
  }

  #push(line: string): void {
    const bytes = this.#encoder.encode(`${line}\n`);
    this.#waiting.push(bytes);
    this.#bytes += bytes.length;
  }

  #flush(): void {
    try {
      let written = 0;
      while (written < this.#waiting.length) {
        if (this.#epoll !== undefined && this.#epoll.wait(0) === 0) break;
        const bytes = this.#waiting[written];
        const n = writeBytes(this.#fd, bytes.subarray(0, PIECE));
        if (n === null) break;
        this.#bytes -= n;
        if (n === bytes.length) written++;
        else this.#waiting[written] = bytes.subarray(n);
      }
      this.#waiting.splice(0, written);
    } catch (error) {
      this.#gone = true;
      this.#waiting = [];
      this.#bytes = this.#lost = 0;
      this.#options.onGone(error);
    }
    if (this.#lost > 0 && this.#waiting.length === 0) {
      this.#push(this.#options.lost(this.#lost));
      this.#lost = 0;
      return this.#flush();
    }
    this.#watch(this.#waiting.length > 0);
    if (this.#waiting.length === 0) this.#onEmpty();
  }

  #watch(wanted: boolean): void {
    if (wanted === this.#watching || this.#epoll === undefined) return;
    this.#watching = wanted;
    if (wanted) this.#reactor.watch(this.#epoll.fd, () => this.#flush());
    else this.#reactor.unwatch(this.#epoll.fd);
  }

  /** Waits until everything is written, or for some milliseconds; then writes no more. */
  async end(patience: number): Promise<void> {
    if (this.#waiting.length > 0) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      await new Promise<void>((resolve) => {
        this.#onEmpty = resolve;
        timer = setTimeout(resolve, patience);
      });
      clearTimeout(timer);
    }
    this.#gone = true;
    this.#watch(false);
    this.#epoll?.close();
  }
}
