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
/** Buffers that are taken at once. */
const AHEAD = 32;

/** What a receiver tells. */
export interface ReceiverEvents {
  /** There are buffers again, or the ring has started. Returns whether to be called again soon. */
  refilled(): boolean;
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
  /** Buffers that were taken and not filled: {@link #count} from {@link #from} on, in order. */
  readonly #held: Chain[] = [];
  #from = 0;
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
  work(): boolean {
    return this.#events.refilled();
  }

  /** {@link QueueOwner.stop}. */
  stop(): void {
    this.#queue = undefined;
    this.#from = this.#count = this.#held.length = 0;
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
      this.#held[this.#from].writable.copyFrom(frame, this.headerSize);
    } else {
      for (let i = 0, done = 0; i < count; i++) {
        const { writable } = this.#held[this.#from + i];
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
      frame.copyInto(this.#held[this.#from].writable, this.headerSize, 0, length);
    } else {
      for (let i = 0, done = 0; i < count; i++) {
        const { writable } = this.#held[this.#from + i];
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
    const { writable } = this.#held[this.#from];
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
      done += this.#held[this.#from + i].writable.copyFrom(rest.subarray(done, rest.length));
    }
    if (this.headerSize === NET_HEADER_SIZE) this.#held[this.#from].writable.setUint16(10, count);
    this.#complete(count, length - this.headerSize);
    return true;
  }

  /** The usual case, by the shortest way: a buffer that has room for the whole frame, or `null`. */
  #whole(length: number): Chain | null {
    if (this.#capture !== undefined || (this.#count === 0 && !this.#take())) return null;
    const chain = this.#held[this.#from];
    if (chain.writable.byteLength < length + this.headerSize) return null;
    this.#from++;
    this.#count--;
    return chain;
  }

  /**
   * Takes buffers, when none is held. Several, as their memory was the driver's last: to ask for it takes as long for all of
   * them as for one, where the driver runs on a processor that is far away.
   */
  #take(): boolean {
    const queue = this.#queue;
    if (queue === undefined) return false;
    const held = this.#held;
    const count = queue.takeBurst(held, 0, AHEAD);
    for (let i = 0; i < count; i++) held[i].writable.claim();
    this.#from = 0;
    this.#count = count;
    return count > 0;
  }

  /** One more buffer behind those that are held. */
  #takeMore(): boolean {
    const chain = this.#queue?.take() ?? null;
    if (chain === null) return false;
    if (this.#from >= AHEAD) {
      this.#held.copyWithin(0, this.#from, this.#from + this.#count);
      this.#from = 0;
    }
    this.#held[this.#from + this.#count++] = chain;
    return true;
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

  /** Sees to it that a buffer is held that has room for a header. */
  #first(): boolean {
    while (this.#count > 0 || this.#take()) {
      const chain = this.#held[this.#from];
      if (chain.writable.byteLength >= this.headerSize) return true;
      // Not even room for a header.
      this.#drop(1);
      this.#queue?.complete(chain);
    }
    return false;
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
    let left = length + this.headerSize - this.#held[this.#from].writable.byteLength;
    if (left <= 0) return 1;
    if (!this.mergeable || length > MAX_FRAME) return 0;
    let count = 1;
    for (; left > 0; count++) {
      // What is held stays for the next frame, or until there are more.
      if (count === this.#count && !this.#takeMore()) return 0;
      left -= this.#held[this.#from + count].writable.byteLength;
    }
    return count;
  }

  /** Writes the header and gives the buffers to the driver. */
  #commit(count: number, length: number, head: number, middle: number, checksumOffset: number): void {
    this.#writeHeader(this.#held[this.#from], head, middle, checksumOffset + count * ONE_BUFFER);
    this.#complete(count, length);
  }

  #show(capture: Capture, count: number, length: number): void {
    capture.begin(length);
    for (let i = 0, left = length; i < count; i++) {
      const { writable } = this.#held[this.#from + i];
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
    const from = this.#from;
    this.#counters.deliveredFrames++;
    this.#counters.deliveredBytes += length;
    if (this.#capture !== undefined) this.#show(this.#capture, count, length);
    if (count === 1) {
      const chain = held[from];
      chain.written = length + this.headerSize;
      queue.complete(chain);
    } else {
      let left = length + this.headerSize;
      for (let i = 0; i < count; i++) {
        const chain = held[from + i];
        chain.written = Math.min(left, chain.writable.byteLength);
        left -= chain.written;
        queue.complete(chain);
      }
    }
    this.#drop(count);
  }

  /** Forgets the first of the buffers that are held. */
  #drop(count: number): void {
    this.#from += count;
    this.#count -= count;
  }
}
