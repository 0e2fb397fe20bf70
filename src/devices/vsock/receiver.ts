/**
 * The receiving ring: packets for the guest.
 *
 * @module
 */

import { Iovec } from "../../../ffi/iovec.ts";
import type { OwnedQueue, QueueOwner } from "../../backend/device.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import type { Segments } from "../../memory/segments.ts";
import type { VsockCounters } from "./counters.ts";
import { VSOCK_HEADER_SIZE, VsockOp } from "./layout.ts";
import { Packet } from "./packet.ts";

/** Buffers that are filled by one system call. */
const MAX_BUFFERS = 64;

/** Whose packets they are: one end of a connection, with what its packets say about it. */
export interface Sender {
  /** CID of this end. */
  readonly hostCid: number;
  /** Port of this end. */
  readonly hostPort: number;
  /** The guest's port. */
  readonly guestPort: number;
  /** Of `VsockType`. */
  readonly type: number;
  /** Bytes of payload that it has room for. */
  readonly bufferSize: number;
  /** Bytes of payload that have left that room. */
  readonly forwarded: number;
  /** A packet with `length` bytes of payload has gone, and has said what {@link forwarded} is. */
  departed(length: number): void;
}

/** Fills the buffers that the driver puts up. */
export class Receiver implements QueueOwner {
  readonly #guestCid: number;
  readonly #counters: VsockCounters;
  readonly #refilled: () => void;
  readonly #packet = new Packet();
  readonly #iovec = new Iovec();
  #queue: OwnedQueue | undefined;
  /** Buffers that were taken and not filled: the first {@link #count}, in order. */
  readonly #held: Chain[] = [];
  #count = 0;
  /** Bytes that each of those has been promised. */
  readonly #promised: number[] = [];

  /**
   * A receiver whose ring does not run.
   *
   * @param refilled called when there are buffers again, or {@link wake} has asked for it
   */
  constructor(guestCid: number, counters: VsockCounters, refilled: () => void) {
    this.#guestCid = guestCid;
    this.#counters = counters;
    this.#refilled = refilled;
  }

  /** Whether the ring runs. */
  get running(): boolean {
    return this.#queue !== undefined;
  }

  /** {@link QueueOwner.start}. */
  start(queue: OwnedQueue): void {
    this.#queue = queue;
  }

  /** {@link QueueOwner.work}. */
  work(): void {
    this.#refilled();
  }

  /** {@link QueueOwner.stop}. */
  stop(): void {
    this.#queue = undefined;
    this.#count = this.#held.length = 0;
  }

  /** Has it called back soon. */
  wake(): void {
    this.#queue?.wake();
  }

  /** Takes buffers until there are `count`. Returns how many there are. */
  #take(count: number): number {
    const queue = this.#queue;
    if (queue === undefined) return 0;
    while (this.#count < count) {
      const chain = queue.take();
      if (chain === null) break;
      if (chain.writable.byteLength <= VSOCK_HEADER_SIZE) {
        // Too small for any payload. Those before it are given back first, as their order counts.
        this.#counters.malformed++;
        queue.complete(chain);
        continue;
      }
      this.#held[this.#count++] = chain;
    }
    return this.#count;
  }

  /** Completes the first buffer with a packet of which the payload is there already. */
  #send(chain: Chain, sender: Sender, op: number, length: number, flags: number): void {
    const packet = this.#packet;
    packet.srcCid = sender.hostCid;
    packet.dstCid = this.#guestCid;
    packet.srcPort = sender.hostPort;
    packet.dstPort = sender.guestPort;
    packet.length = length;
    packet.type = sender.type;
    packet.op = op;
    packet.flags = flags;
    packet.bufAlloc = sender.bufferSize;
    packet.fwdCnt = sender.forwarded;
    packet.write(chain.writable);
    chain.written = VSOCK_HEADER_SIZE + length;
    this.#queue?.complete(chain);
    this.#counters.deliveredBytes += length;
    sender.departed(length);
  }

  #drop(count: number): void {
    this.#held.copyWithin(0, count, this.#count);
    this.#count -= count;
  }

  /** Sends a packet without payload. Returns false when there is no buffer. */
  control(sender: Sender, op: number, flags = 0): boolean {
    if (this.#take(1) === 0) return false;
    const chain = this.#held[0];
    this.#drop(1);
    this.#send(chain, sender, op, 0, flags);
    return true;
  }

  /**
   * Offers buffers by address, for up to `limit` bytes of payload. {@link commit} must follow before anything else.
   *
   * @returns where to write; empty when there is no buffer
   */
  reserve(limit: number): Iovec {
    const iovec = this.#iovec;
    iovec.clear();
    for (let i = 0; i < MAX_BUFFERS && iovec.byteLength < limit && !iovec.full; i++) {
      if (this.#take(i + 1) <= i) break;
      const { writable } = this.#held[i];
      const size = Math.min(writable.byteLength - VSOCK_HEADER_SIZE, limit - iovec.byteLength);
      this.#promised[i] = writable.toIovec(iovec, VSOCK_HEADER_SIZE, size);
    }
    return iovec;
  }

  /** Sends what was written where {@link reserve} has said: `length` bytes of payload. */
  commit(sender: Sender, length: number): void {
    let left = length;
    let i = 0;
    for (; left > 0; i++) {
      const size = Math.min(left, this.#promised[i]);
      this.#send(this.#held[i], sender, VsockOp.RW, size, 0);
      left -= size;
    }
    this.#drop(i);
  }

  /**
   * Sends one packet with bytes of a piece of memory.
   *
   * @param flags of the packet when it has all of them; it has none otherwise
   * @returns bytes sent, as many as fit in a buffer; -1 when there is no buffer
   */
  put(sender: Sender, bytes: Uint8Array, flags: number): number {
    if (this.#take(1) === 0) return -1;
    const chain = this.#held[0];
    const room = chain.writable.byteLength - VSOCK_HEADER_SIZE;
    const size = Math.min(room, bytes.length);
    chain.writable.copyFrom(size === bytes.length ? bytes : bytes.subarray(0, size), VSOCK_HEADER_SIZE);
    this.#drop(1);
    this.#send(chain, sender, VsockOp.RW, size, size === bytes.length ? flags : 0);
    return size;
  }

  /** The same with bytes of guest memory, in as many packets as it takes. Returns bytes sent. */
  forward(sender: Sender, source: Segments, position: number, length: number): number {
    let done = 0;
    while (done < length && this.#take(1) > 0) {
      const chain = this.#held[0];
      const size = Math.min(chain.writable.byteLength - VSOCK_HEADER_SIZE, length - done);
      source.copyInto(chain.writable, VSOCK_HEADER_SIZE, position + done, size);
      this.#drop(1);
      this.#send(chain, sender, VsockOp.RW, size, 0);
      done += size;
    }
    return done;
  }
}
