/**
 * Reading and writing a file without waiting for it.
 *
 * @module
 */

import { EpollEvent } from "../../../ffi/epoll.ts";
import { consume } from "../../../ffi/eventfd.ts";
import { IoUring } from "../../../ffi/io_uring.ts";
import { Iovec } from "../../../ffi/iovec.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import type { Looker, Reactor } from "../../../ffi/reactor.ts";
import type { Span } from "../../memory/span.ts";
import type { Completion } from "./storage.ts";

const TWO_32 = 0x1_0000_0000;
/** Operations handed to the kernel in one call. */
const BATCH = 128;
/** Operations under way at once: several full rings. */
const CAPACITY = 4096;
/** Pieces of memory named in one batch. */
const PIECES = 4096;
/**
 * Neighbours are joined up to so many bytes: the kernel takes less time for one operation than for several, but a disk that
 * works on several at once should still get several.
 */
const JOINED = 128 * 1024;
/** Pieces that one operation may have (IOV_MAX). */
const PIECES_JOINED = 1024;

/** What an operation does, and what it does it with again when it was cut short. */
class Slot {
  readonly token: number;
  /** A request that is done by the same operation. */
  next: Slot | undefined;
  span: Span | undefined;
  completion: Completion | undefined;
  length = 0;
  position = 0;
  writes = false;

  constructor(token: number) {
    this.token = token;
  }
}

/** What is done at once, and again where the kernel did a part. */
export interface Synchronous {
  /** Reads all. */
  readNow(data: Span, position: number): void;
  /** Writes all. */
  writeNow(data: Span, position: number): void;
}

/**
 * Operations of one file on an io_uring. They are handed over by the batch, when the reactor has gone through the rings, and
 * what has completed is taken then or when the kernel tells.
 */
export class FileEngine implements Looker {
  readonly #fd: number;
  readonly #reactor: Reactor;
  readonly #now: Synchronous;
  readonly #ring = new IoUring(BATCH, CAPACITY);
  readonly #pieces = new Iovec(PIECES);
  readonly #lists = Number(this.#pieces.address);
  /** By token. */
  readonly #slots: Slot[] = [];
  readonly #free: Slot[] = [];
  /** The operation that was prepared last, by its last request, unless it cannot be joined; its bytes and first piece. */
  #last: Slot | undefined;
  #joined = 0;
  #from = 0;
  readonly #onCompletion = (token: number, result: number): void => this.#finish(token, result);
  #quiet = false;
  #closed = false;

  /**
   * For a file; the descriptor stays the caller's.
   *
   * @throws {OsError} where there is no io_uring
   */
  constructor(fd: number, now: Synchronous, reactor: Reactor) {
    this.#fd = fd;
    this.#now = now;
    this.#reactor = reactor;
    // A server that is closed ends its process, whether its disk is closed or not.
    reactor.watch(
      this.#ring.eventFd,
      () => {
        consume(this.#ring.eventFd);
        reactor.wake(this);
      },
      EpollEvent.IN,
      true,
    );
  }

  /** Reads. Returns false when it cannot take more, and has done nothing. */
  read(data: Span, position: number, completion: Completion): boolean {
    return this.#transfer(data, position, completion, false);
  }

  /** Writes. Returns false when it cannot take more, and has done nothing. */
  write(data: Span, position: number, completion: Completion): boolean {
    return this.#transfer(data, position, completion, true);
  }

  #transfer(data: Span, position: number, completion: Completion, writes: boolean): boolean {
    const ring = this.#ring;
    const pieces = this.#pieces;
    if (ring.full || this.#closed) return false;
    let from = pieces.count;
    if (data.toIovec(pieces) < data.byteLength) {
      this.#submit();
      // What the kernel did not take still refers to the list.
      if (ring.unsubmitted > 0) return false;
      from = 0;
      if (data.toIovec(pieces) < data.byteLength) {
        pieces.clear();
        return false;
      }
    }
    const slot = this.#take();
    slot.span = data;
    slot.completion = completion;
    slot.length = data.byteLength;
    slot.position = position;
    slot.writes = writes;
    if (!this.#join(slot)) this.#prepare(slot, from);
    this.#reactor.wake(this);
    return true;
  }

  #prepare(slot: Slot, from: number): void {
    const ring = this.#ring;
    const pieces = this.#pieces;
    const { token, length, position, writes } = slot;
    const count = pieces.count - from;
    if (count === 1) {
      const address = pieces.addressAt(from);
      if (writes) ring.write(token, this.#fd, address, length, position);
      else ring.read(token, this.#fd, address, length, position);
    } else {
      const list = this.#lists + 16 * from;
      if (writes) ring.writeVector(token, this.#fd, list, count, position);
      else ring.readVector(token, this.#fd, list, count, position);
    }
    this.#last = slot;
    this.#joined = length;
    this.#from = from;
  }

  /** Does a request by the operation that was prepared last, if it goes on where that ends. Returns whether it does. */
  #join(slot: Slot): boolean {
    const last = this.#last;
    if (last === undefined || this.#ring.unsubmitted === 0) return false;
    if (slot.position !== last.position + last.length || slot.writes !== last.writes) return false;
    const count = this.#pieces.count - this.#from;
    if (this.#joined + slot.length > JOINED || count > PIECES_JOINED) return false;
    const list = this.#lists + 16 * this.#from;
    this.#ring.widen(list | 0, Math.floor(list / TWO_32), count);
    this.#joined += slot.length;
    this.#last = last.next = slot;
    return true;
  }

  /** `fdatasync`. Returns false when it cannot take more. */
  flush(completion: Completion): boolean {
    if (this.#ring.full || this.#closed) return false;
    this.#ring.syncData(this.#other(completion), this.#fd);
    this.#reactor.wake(this);
    return true;
  }

  /**
   * `fallocate`. Resolves to false when the file system cannot do it.
   *
   * @throws {OsError} as a rejection, for any other failure
   */
  async allocate(mode: number, position: number, length: number): Promise<boolean> {
    try {
      await new Promise<void>((resolve, reject) => {
        const done = (error?: unknown): void => error === undefined ? resolve() : reject(error);
        if (this.#ring.full || this.#closed) {
          throw new OsError("fallocate", Errno.EAGAIN, "putting it off: too much is under way");
        }
        this.#ring.allocate(this.#other({ done }), this.#fd, mode, position, length);
        this.#reactor.wake(this);
      });
      return true;
    } catch (error) {
      if (error instanceof OsError && error.errno === Errno.EOPNOTSUPP) return false;
      throw error;
    }
  }

  #other(completion: Completion): number {
    const slot = this.#take();
    slot.completion = completion;
    this.#last = undefined;
    return slot.token;
  }

  #take(): Slot {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const made = new Slot(this.#slots.length);
    this.#slots.push(made);
    return made;
  }

  #submit(): void {
    this.#ring.submit();
    if (this.#ring.unsubmitted > 0) return;
    this.#pieces.clear();
    this.#last = undefined;
  }

  #finish(token: number, result: number): void {
    const first = this.#slots[token];
    let length = 0;
    for (let slot: Slot | undefined = first; slot !== undefined; slot = slot.next) length += slot.length;
    for (let slot: Slot | undefined = first; slot !== undefined;) {
      const next: Slot | undefined = slot.next;
      this.#complete(slot, result === length, result);
      slot = next;
    }
  }

  #complete(slot: Slot, whole: boolean, result: number): void {
    const { span, completion, position, writes } = slot;
    slot.span = slot.completion = slot.next = undefined;
    slot.length = 0;
    this.#free.push(slot);
    if (whole) return completion?.done();
    try {
      if (span === undefined) {
        throw new OsError("io_uring", -result, `flushing or changing descriptor ${this.#fd}`);
      }
      // The end of the file, an interruption, memory that O_DIRECT cannot use: what can be done is done at once.
      if (writes) this.#now.writeNow(span, position);
      else this.#now.readNow(span, position);
      completion?.done();
    } catch (error) {
      completion?.done(error);
    }
  }

  /** Hands over what was prepared, takes what has completed. Returns whether there was anything. */
  look(): boolean {
    const ring = this.#ring;
    if (this.#closed) return false;
    if (!this.#quiet) this.#quiet = ring.quiet = true;
    const submitted = ring.unsubmitted > 0;
    if (submitted) this.#submit();
    if (!ring.completed()) return submitted;
    ring.take(this.#onCompletion);
    return true;
  }

  /** Has the kernel tell of what completes. Returns whether something has meanwhile. */
  idle(): boolean {
    if (this.#closed) return false;
    this.#quiet = this.#ring.quiet = false;
    return this.#ring.unsubmitted > 0 || this.#ring.completed();
  }

  /** Lets go of everything as soon as nothing is under way. */
  close(): void {
    if (this.#closed) return;
    // The kernel still writes to memory for what is under way.
    while (this.#ring.inFlight > 0) {
      this.#submit();
      this.#ring.wait();
      this.#ring.take(this.#onCompletion);
    }
    this.#closed = true;
    this.#reactor.rest(this);
    this.#reactor.unwatch(this.#ring.eventFd);
    this.#ring.close();
  }
}
