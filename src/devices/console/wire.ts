/**
 * Bytes between a port and a pair of descriptors.
 *
 * @module
 */

import { EpollEvent } from "../../../ffi/epoll.ts";
import { close, duplicate } from "../../../ffi/fd.ts";
import { Iovec } from "../../../ffi/iovec.ts";
import { Native } from "../../../ffi/native.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import { readPieces, writePieces } from "../../../ffi/vector_io.ts";
import type { OutputData, PortLink } from "./end.ts";

/** Reads of one turn. */
const BURST = 16;
/** Bytes that are written at once. */
const MAX_WRITE = 1 << 18;
/** Bytes that are looked at before the guest gets them. */
const LOOK = 4096;

/** What a wire tells. */
export interface WireEvents {
  /** There is no more input: the end of the file, or the peer sends no more. */
  ended(): void;
  /** Nothing can be read or written any more. */
  failed(error: unknown): void;
  /** Looks at input before the guest gets it. */
  look?(bytes: Uint8Array): void;
}

/**
 * Reads into the guest's buffers and writes from them. What one side does not take stays with the other: in the kernel's
 * buffer, in the guest's ring. The descriptors are non-blocking, and stay the caller's.
 */
export class Wire {
  readonly #port: PortLink;
  readonly #input: number;
  readonly #output: number;
  readonly #events: WireEvents;
  readonly #reactor = Reactor.shared();
  readonly #iovec = new Iovec();
  readonly #room: Native | undefined;
  #watched = false;
  /** Whether the kernel never lets us wait for input: a regular file. */
  #always = false;
  #paused = false;
  #waits = -1;
  #closed = false;

  /**
   * Starts to read.
   *
   * @param input descriptor to read, -1 for none
   * @param output descriptor to write, -1 for none: then output is dropped
   */
  constructor(port: PortLink, input: number, output: number, events: WireEvents) {
    this.#port = port;
    this.#input = input;
    this.#output = output;
    this.#events = events;
    this.#room = events.look === undefined ? undefined : new Native(LOOK);
    if (input < 0) return;
    try {
      this.#reactor.watch(input, () => this.#receive());
      this.#watched = true;
    } catch (error) {
      if (!(error instanceof OsError && error.errno === Errno.EPERM)) throw error;
      this.#always = this.#paused = true;
    }
  }

  /** The guest takes input again. */
  refilled(): void {
    if (this.#closed || !this.#paused) return;
    this.#paused = false;
    if (this.#watched) this.#reactor.resume(this.#input);
    else if (this.#always) this.#receive();
  }

  #receive(): void {
    try {
      for (let i = 0; (i < BURST || this.#always) && !this.#closed; i++) {
        const iovec = this.#iovec;
        iovec.clear();
        const room = this.#port.reserve(iovec);
        if (room === 0) return this.#pause();
        if (this.#room !== undefined) {
          iovec.clear();
          iovec.push(Number(this.#room.address), Math.min(room, LOOK));
        }
        const length = readPieces(this.#input, iovec);
        if (length < 0) return;
        if (length === 0) {
          this.#stopReading();
          return this.#events.ended();
        }
        if (this.#room === undefined) {
          this.#port.filled(length);
        } else {
          const bytes = this.#room.bytes.subarray(0, length);
          this.#port.input(bytes);
          this.#events.look?.(bytes);
        }
      }
    } catch (error) {
      this.#events.failed(error);
    }
  }

  #pause(): void {
    if (this.#watched) this.#reactor.pause(this.#input);
    this.#paused = true;
  }

  #stopReading(): void {
    if (this.#watched) this.#reactor.unwatch(this.#input);
    this.#watched = this.#always = this.#paused = false;
  }

  /** Writes bytes of the guest from a position on. Returns how many were written; the port is resumed when it can go on. */
  output(data: OutputData, from: number): number {
    if (this.#output < 0) return data.byteLength - from;
    let at = from;
    while (at < data.byteLength && this.#waits < 0 && !this.#closed) {
      const iovec = this.#iovec;
      iovec.clear();
      data.toIovec(iovec, at, Math.min(MAX_WRITE, data.byteLength - at));
      const length = this.#write(iovec);
      if (length < 0) break;
      at += length;
    }
    return at - from;
  }

  /** Writes what an iovec has. Returns how much was written, or -1 when the descriptor takes none now. */
  #write(iovec: Iovec): number {
    try {
      const length = writePieces(this.#output, iovec);
      if (length < 0) this.#waitForRoom();
      return length;
    } catch (error) {
      this.#events.failed(error);
      return -1;
    }
  }

  /** Writes other bytes. Returns how many were written. */
  write(fill: (iovec: Iovec) => void): number {
    if (this.#output < 0 || this.#waits >= 0 || this.#closed) return 0;
    this.#iovec.clear();
    fill(this.#iovec);
    return Math.max(0, this.#write(this.#iovec));
  }

  #waitForRoom(): void {
    // The same descriptor may be waited for already, for reading.
    this.#waits = duplicate(this.#output);
    this.#reactor.watch(this.#waits, () => {
      this.#stopWaiting();
      this.#port.resume();
    }, EpollEvent.OUT);
  }

  #stopWaiting(): void {
    if (this.#waits < 0) return;
    this.#reactor.unwatch(this.#waits);
    close(this.#waits);
    this.#waits = -1;
  }

  /** Lets go of the descriptors. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopReading();
    this.#stopWaiting();
  }
}
