/**
 * The receiving ring of a queue pair: frames for the guest.
 *
 * @module
 */

import type { Iovec } from "../../../ffi/iovec.ts";
import type { OwnedQueue, QueueOwner } from "../../backend/device.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import type { NetCounters } from "./counters.ts";
import type { Frame } from "./frame.ts";
import type { Capture } from "./pcap.ts";
import { MAX_FRAME, NET_HEADER_SIZE } from "./layout.ts";

/** num_buffers of a header: in the upper half of its last word. */
const ONE_BUFFER = 0x1_0000;

/** What a receiver tells. */
export interface ReceiverEvents {
  /** There are buffers again, or the ring has started. */
  refilled(): void;
  /** The ring runs, or does not any more. */
  running(running: boolean): void;
}

/** Delivers frames into the buffers that the driver puts up. */
export class Receiver implements QueueOwner {
  /** Bytes of the header before each frame. */
  headerSize = NET_HEADER_SIZE;
  /** Whether a frame may take several buffers (MRG_RXBUF). */
  mergeable = false;
  readonly #counters: NetCounters;
  readonly #events: ReceiverEvents;
  readonly #capture: Capture | undefined;
  #queue: OwnedQueue | undefined;
  /** Buffers that were taken and not filled: the first {@link #count}, in order. */
  readonly #held: Chain[] = [];
  #count = 0;

  /** A receiver whose ring does not run. */
  constructor(counters: NetCounters, events: ReceiverEvents, capture?: Capture) {
    this.#counters = counters;
    this.#events = events;
    this.#capture = capture;
  }

  /** Whether the ring runs. */
  get running(): boolean {
    return this.#queue !== undefined;
  }

  /** {@link QueueOwner.start}. */
  start(queue: OwnedQueue): void {
    this.#queue = queue;
    this.#events.running(true);
  }

  /** {@link QueueOwner.work}. */
  work(): void {
    this.#events.refilled();
  }

  /** {@link QueueOwner.stop}. */
  stop(): void {
    this.#queue = undefined;
    this.#count = this.#held.length = 0;
    this.#events.running(false);
  }

  /** Whether there are buffers for a frame of `length` bytes. */
  hasRoom(length: number): boolean {
    // One that will never fit is better dropped than waited for.
    return this.mergeable && length <= MAX_FRAME ? this.#buffersFor(length) > 0 : this.#first();
  }

  /** Delivers a finished frame. Returns false when it was dropped. */
  deliver(frame: Uint8Array): boolean {
    const chain = this.#whole(frame.length);
    if (chain !== null) {
      chain.writable.copyFrom(frame, this.headerSize);
      this.#writeHeader(chain, 0, 0, ONE_BUFFER);
      this.#completeOne(chain, frame.length);
      return true;
    }
    const count = this.#gather(frame.length);
    if (count === 0) return false;
    if (count === 1) {
      this.#held[0].writable.copyFrom(frame, this.headerSize);
    } else {
      for (let i = 0, done = 0; i < count; i++) {
        const { writable } = this.#held[i];
        const at = i === 0 ? this.headerSize : 0;
        done += writable.copyFrom(frame.subarray(done), at);
      }
    }
    this.#commit(count, frame.length, 0, 0, 0);
    return true;
  }

  /** Delivers a frame that is in guest memory, as finished as its header says. Returns false when it was dropped. */
  forward(frame: Frame, head: number, middle: number, checksumOffset: number): boolean {
    const length = frame.byteLength;
    const chain = this.#whole(length);
    if (chain !== null) {
      frame.copyInto(chain.writable, this.headerSize, 0, length);
      this.#writeHeader(chain, head, middle, checksumOffset + ONE_BUFFER);
      this.#completeOne(chain, length);
      return true;
    }
    const count = this.#gather(length);
    if (count === 0) return false;
    if (count === 1) {
      frame.copyInto(this.#held[0].writable, this.headerSize, 0, length);
    } else {
      for (let i = 0, done = 0; i < count; i++) {
        const { writable } = this.#held[i];
        const at = i === 0 ? this.headerSize : 0;
        const size = Math.min(writable.byteLength - at, length - done);
        frame.copyInto(writable, at, done, size);
        done += size;
      }
    }
    this.#commit(count, length, head, middle, checksumOffset);
    return true;
  }

  /** Offers the next buffer by address. Returns its bytes of room, 0 when there is none. */
  reserve(iovec: Iovec): number {
    if (!this.#first()) return 0;
    const { writable } = this.#held[0];
    return writable.toIovec(iovec, 0, Math.min(writable.byteLength, MAX_FRAME + this.headerSize));
  }

  /** Delivers what was read into the buffer that was offered, header included, and what did not fit into it. */
  filled(length: number, rest: Uint8Array): boolean {
    // Nothing is reserved any more when the ring has stopped since.
    if (this.#count === 0 || length < this.headerSize) return false;
    const count = this.#gather(length - this.headerSize);
    if (count === 0) return false;
    let done = 0;
    for (let i = 1; i < count; i++) {
      done += this.#held[i].writable.copyFrom(rest.subarray(done, rest.length));
    }
    if (this.headerSize === NET_HEADER_SIZE) this.#held[0].writable.setUint16(10, count);
    this.#complete(count, length - this.headerSize);
    return true;
  }

  /**
   * The usual case, by the shortest way: takes a buffer that has room for the whole frame. Returns `null` when it has not, and
   * holds it; or when one is held already.
   */
  #whole(length: number): Chain | null {
    if (this.#count > 0 || this.#queue === undefined || this.#capture !== undefined) return null;
    const chain = this.#queue.take();
    if (chain === null || chain.writable.byteLength >= length + this.headerSize) return chain;
    this.#held[0] = chain;
    this.#count = 1;
    return null;
  }

  #completeOne(chain: Chain, length: number): void {
    this.#counters.deliveredFrames++;
    this.#counters.deliveredBytes += length;
    chain.written = length + this.headerSize;
    this.#queue?.complete(chain);
  }

  #writeHeader({ writable }: Chain, head: number, middle: number, last: number): void {
    if (this.headerSize === NET_HEADER_SIZE) {
      writable.setHeader(head, middle, last);
    } else {
      writable.setUint32(0, head);
      writable.setUint32(4, middle);
      writable.setUint16(8, last);
    }
  }

  /** Takes a buffer, if none is held, that has room for a header. */
  #first(): boolean {
    const queue = this.#queue;
    if (queue === undefined) return false;
    for (;;) {
      if (this.#count === 0) {
        const chain = queue.take();
        if (chain === null) return false;
        this.#held[this.#count++] = chain;
      }
      const [chain] = this.#held;
      if (chain.writable.byteLength >= this.headerSize) return true;
      // Not even room for a header.
      this.#drop(1);
      queue.complete(chain);
    }
  }

  /** Takes buffers for a frame. Returns how many it needs; 0 when it is dropped for want of them. */
  #gather(length: number): number {
    const count = this.#buffersFor(length);
    if (count === 0) this.#counters.dropped++;
    return count;
  }

  /** Takes buffers for a frame of `length` bytes. Returns how many it needs, all of them held; 0 when there are too few. */
  #buffersFor(length: number): number {
    if (!this.#first()) return 0;
    let left = length + this.headerSize - this.#held[0].writable.byteLength;
    if (left <= 0) return 1;
    if (!this.mergeable || length > MAX_FRAME) return 0;
    const queue = this.#queue as OwnedQueue;
    let count = 1;
    for (; left > 0; count++) {
      if (count === this.#count) {
        const chain = queue.take();
        // What is held stays for the next frame, or until there are more.
        if (chain === null) return 0;
        this.#held[this.#count++] = chain;
      }
      left -= this.#held[count].writable.byteLength;
    }
    return count;
  }

  /** Writes the header and gives the buffers to the driver. */
  #commit(count: number, length: number, head: number, middle: number, checksumOffset: number): void {
    this.#writeHeader(this.#held[0], head, middle, checksumOffset + count * ONE_BUFFER);
    this.#complete(count, length);
  }

  #show(capture: Capture, count: number, length: number): void {
    capture.begin(length);
    for (let i = 0, left = length; i < count; i++) {
      const { writable } = this.#held[i];
      const at = i === 0 ? this.headerSize : 0;
      const size = Math.min(left, writable.byteLength - at);
      capture.piece(writable, at, size);
      left -= size;
    }
    capture.end();
  }

  #complete(count: number, length: number): void {
    const queue = this.#queue as OwnedQueue;
    const held = this.#held;
    this.#counters.deliveredFrames++;
    this.#counters.deliveredBytes += length;
    if (this.#capture !== undefined) this.#show(this.#capture, count, length);
    if (count === 1) {
      const chain = held[0];
      chain.written = length + this.headerSize;
      queue.complete(chain);
    } else {
      let left = length + this.headerSize;
      for (let i = 0; i < count; i++) {
        const chain = held[i];
        chain.written = Math.min(left, chain.writable.byteLength);
        left -= chain.written;
        queue.complete(chain);
      }
    }
    this.#drop(count);
  }

  /** Forgets the first of the buffers that are held. */
  #drop(count: number): void {
    this.#count -= count;
    if (this.#count > 0) this.#held.copyWithin(0, count, count + this.#count);
  }
}
