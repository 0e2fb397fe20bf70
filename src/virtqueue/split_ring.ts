/**
 * The device's side of the split ring (virtio 1.4, section 2.7).
 *
 * @module
 */

import type { AddressSpace } from "../memory/address_space.ts";
import { Segments } from "../memory/segments.ts";
import { Chain } from "./chain.ts";
import { type Ring, RingError, type RingPlace } from "./ring.ts";
import {
  DESCRIPTOR_SIZE,
  DescriptorFlag,
  MAX_RING_SIZE,
  needEvent,
  NO_INTERRUPT,
  NO_NOTIFY,
  splitRingSizes,
} from "./split_layout.ts";

const { NEXT, WRITE, INDIRECT } = DescriptorFlag;
const TWO_32 = 0x1_0000_0000;

/** Descriptors that a table may have, whatever the ring's size. */
const LONGEST_TABLE = 1024;

// Places in the u16 view of the available ring.
const AVAIL_FLAGS = 0;
const AVAIL_IDX = 1;
const AVAIL_RING = 2;
// Places in the u16 view of the used ring.
const USED_FLAGS = 0;
const USED_IDX = 1;

/** How a split ring was negotiated. */
export interface SplitRingOptions {
  /** EVENT_IDX: both sides say at which index they want to be told. */
  readonly eventIdx: boolean;
  /** INDIRECT_DESC: a descriptor may name a table of descriptors. */
  readonly indirect: boolean;
  /** Index of the next request, as SET_VRING_BASE gives it. */
  readonly base: number;
}

/** The device's side of a split ring. */
export class SplitRing implements Ring {
  /** Entries, a power of two. */
  readonly size: number;
  readonly #space: AddressSpace;
  readonly #options: SplitRingOptions;
  readonly #mask: number;
  readonly #chains: (Chain | undefined)[];
  /** Next index to take. */
  #next: number;
  /** The driver's index as last seen: requests up to here can be taken without another look. */
  #seen: number;
  /** Our used index, ahead of the published one. */
  #used: number;
  #published: number;
  /** Whether the driver's wishes can be compared with what it saw before: not for the first notification. */
  #notified = false;
  #suppressed = false;
  #inFlight = 0;
  #descriptors: Uint32Array = new Uint32Array(0);
  #available: Uint16Array = new Uint16Array(0);
  #usedIndex: Uint16Array = new Uint16Array(0);
  #usedRing: Uint32Array = new Uint32Array(0);
  /** The indirect table that is being followed. */
  readonly #table = new Segments();

  /**
   * Takes over a ring where the driver, or an earlier device, left it.
   *
   * @throws {RangeError} when the size is no power of two up to 32768
   */
  constructor(space: AddressSpace, size: number, place: RingPlace, options: SplitRingOptions) {
    if (!Number.isInteger(size) || size < 1 || size > MAX_RING_SIZE || (size & (size - 1)) !== 0) {
      throw new RangeError(`split ring size must be a power of two up to ${MAX_RING_SIZE}, got ${size}`);
    }
    this.#space = space;
    this.size = size;
    this.#mask = size - 1;
    this.#options = options;
    this.#chains = new Array(size);
    this.#next = this.#seen = options.base & 0xffff;
    this.bind(place);
    this.#used = this.#published = Atomics.load(this.#usedIndex, USED_IDX);
  }

  /** The ring's memory has moved; positions stay. */
  bind({ descriptor, available, used }: RingPlace): void {
    const bytes = splitRingSizes(this.size, this.#options.eventIdx);
    const at = (part: { region: { buffer: ArrayBuffer; bufferOffset: number }; offset: number }) =>
      part.region.bufferOffset + part.offset;
    this.#descriptors = new Uint32Array(descriptor.region.buffer, at(descriptor), bytes.descriptor / 4);
    this.#available = new Uint16Array(available.region.buffer, at(available), bytes.available / 2);
    this.#usedIndex = new Uint16Array(used.region.buffer, at(used), bytes.used / 2);
    this.#usedRing = new Uint32Array(used.region.buffer, at(used) + 4, 2 * this.size);
  }

  /** Requests taken and not yet returned. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Index of the next request to take. */
  get base(): number {
    return this.#next;
  }

  /** Whether the driver has made something available that was not taken yet. */
  available(): boolean {
    return this.#next !== this.#seen || Atomics.load(this.#available, AVAIL_IDX) !== this.#next;
  }

  /**
   * Takes the next request, or `null` when there is none.
   *
   * @throws {RingError} when the driver broke the ring
   */
  pop(): Chain | null {
    if (this.#next === this.#seen) {
      const seen = Atomics.load(this.#available, AVAIL_IDX);
      if (seen === this.#next) return null;
      const distance = (seen - this.#next) & 0xffff;
      if (distance > this.size) {
        throw new RingError(
          `available index ${seen} is ${distance} ahead of ${this.#next}, more than the ring's ${this.size} entries`,
        );
      }
      this.#seen = seen;
    }
    const head = this.#available[AVAIL_RING + (this.#next & this.#mask)];
    if (head >= this.size) {
      throw new RingError(
        `head ${head} at available index ${this.#next}: the table has ${this.size} descriptors`,
      );
    }
    const chain = this.#chains[head] ??= new Chain(head);
    if (chain.inFlight) throw new RingError(`head ${head} was made available again before it was returned`);
    // Also after a walk that was given up half-way.
    chain.reset();
    this.#walk(chain, head);
    chain.inFlight = true;
    this.#inFlight++;
    this.#next = (this.#next + 1) & 0xffff;
    return chain;
  }

  /** Follows the descriptors. Each is copied once; only the copy is checked and used. */
  #walk(chain: Chain, head: number): void {
    const words = this.#descriptors;
    let index = head;
    for (let count = 1;; count++) {
      if (count > this.size) {
        throw new RingError(`chain of head ${head} has a loop: more than ${this.size} descriptors`);
      }
      const at = index * 4;
      const address = words[at] + words[at + 1] * TWO_32;
      const length = words[at + 2];
      const last = words[at + 3];
      const flags = last & 0xffff;
      if ((flags & INDIRECT) !== 0) {
        if ((flags & NEXT) !== 0) throw new RingError(`descriptor ${index}: INDIRECT together with NEXT`);
        this.#walkTable(chain, address, length, index);
        return;
      }
      this.#append(chain, address, length, flags, index);
      if ((flags & NEXT) === 0) return;
      index = last >>> 16;
      if (index >= this.size) {
        throw new RingError(`next descriptor ${index} of head ${head}: the table has ${this.size}`);
      }
    }
  }

  #walkTable(chain: Chain, table: number, length: number, from: number): void {
    if (!this.#options.indirect) throw new RingError(`descriptor ${from}: INDIRECT was not negotiated`);
    if (length === 0 || length % DESCRIPTOR_SIZE !== 0) {
      throw new RingError(
        `indirect table of ${length} bytes: must be a multiple of ${DESCRIPTOR_SIZE}, more than 0`,
      );
    }
    const entries = length / DESCRIPTOR_SIZE;
    const words = this.#table;
    words.clear();
    if (!this.#space.append(words, table, length, false)) {
      throw new RingError(
        `indirect table of descriptor ${from}: 0x${table.toString(16)}+${length} is not in guest memory`,
      );
    }
    // A driver with a small ring may still use long tables.
    const most = Math.min(entries, Math.max(this.size, LONGEST_TABLE));
    let index = 0;
    for (let count = 1;; count++) {
      if (count > most) {
        throw new RingError(
          `indirect table at descriptor ${from} has a loop or is too long: more than ${most} descriptors`,
        );
      }
      const at = index * DESCRIPTOR_SIZE;
      const address = words.getUint64(at);
      const size = words.getUint32(at + 8);
      const last = words.getUint32(at + 12);
      const flags = last & 0xffff;
      if ((flags & INDIRECT) !== 0) throw new RingError(`indirect table at descriptor ${from}: nested table`);
      this.#append(chain, address, size, flags, index);
      if ((flags & NEXT) === 0) return;
      index = last >>> 16;
      if (index >= entries) {
        throw new RingError(`next descriptor ${index} in an indirect table of ${entries}`);
      }
    }
  }

  #append(chain: Chain, address: number, length: number, flags: number, index: number): void {
    const writable = (flags & WRITE) !== 0;
    const segments = writable ? chain.writable : chain.readable;
    if (!writable && chain.writable.count > 0) {
      throw new RingError(`descriptor ${index} of head ${chain.head}: readable after writable`);
    }
    if (length === 0) return;
    if (!this.#space.append(segments, address, length, writable)) {
      throw new RingError(
        `descriptor ${index} of head ${chain.head}: 0x${
          address.toString(16)
        }+${length} is not in guest memory`,
      );
    }
    if (chain.readable.byteLength + chain.writable.byteLength >= TWO_32) {
      throw new RingError(`chain of head ${chain.head}: 2^32 bytes or more`);
    }
  }

  /** Returns a request; the driver sees it after {@link publish}. */
  push(chain: Chain): void {
    const slot = (this.#used & this.#mask) * 2;
    this.#usedRing[slot] = chain.head;
    this.#usedRing[slot + 1] = chain.written;
    this.#used = (this.#used + 1) & 0xffff;
    chain.inFlight = false;
    chain.reset();
    this.#inFlight--;
  }

  /** Shows the driver what was returned. Returns whether it wants to be told. */
  publish(): boolean {
    const after = this.#used;
    const before = this.#published;
    if (after === before) return false;
    // Both accesses are sequentially consistent: the driver either sees the index, or we see what it wants.
    Atomics.store(this.#usedIndex, USED_IDX, after);
    this.#published = after;
    if (!this.#notified) return this.#notified = true;
    if (this.#options.eventIdx) {
      return needEvent(Atomics.load(this.#available, AVAIL_RING + this.size), after, before);
    }
    return (Atomics.load(this.#available, AVAIL_FLAGS) & NO_INTERRUPT) === 0;
  }

  /** Asks the driver not to tell of new requests. */
  suppress(): void {
    // With EVENT_IDX an index in the past asks for nothing, so there is nothing to write.
    if (this.#suppressed || this.#options.eventIdx) return;
    this.#suppressed = true;
    this.#usedIndex[USED_FLAGS] = NO_NOTIFY;
  }

  /** Asks the driver to tell of new requests. Returns whether some came in before it could know. */
  arm(): boolean {
    if (this.#options.eventIdx) {
      Atomics.store(this.#usedIndex, 2 + 4 * this.size, this.#next);
    } else {
      this.#suppressed = false;
      Atomics.store(this.#usedIndex, USED_FLAGS, 0);
    }
    return Atomics.load(this.#available, AVAIL_IDX) !== this.#next;
  }
}
