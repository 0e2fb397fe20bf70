/**
 * The device's side of the split ring (virtio 1.4, section 2.7).
 *
 * @module
 */

import type { AddressSpace } from "../memory/address_space.ts";
import type { DirtyLog } from "../memory/dirty_log.ts";
import { Segments } from "../memory/segments.ts";
import { Chain } from "./chain.ts";
import { checkLength, Descriptors, partOffset } from "./descriptors.ts";
import { InflightSplit } from "./inflight_split.ts";
import { newestFirst, ReturnOrder } from "./return_order.ts";
import { type Ring, RingError, type RingOptions, type RingPlace } from "./ring.ts";
import { around, dumpDescriptors, type RingDump } from "./ring_dump.ts";
import {
  DescriptorFlag,
  MAX_RING_SIZE,
  needEvent,
  NO_INTERRUPT,
  NO_NOTIFY,
  splitRingSizes,
} from "./split_layout.ts";

// Constants of this file are compiled in, those of other files are loaded each time.
const { NEXT, WRITE, INDIRECT } = DescriptorFlag;

// Places in the u16 view of the available ring.
const AVAIL_FLAGS = 0;
const AVAIL_IDX = 1;
const AVAIL_RING = 2;
// Places in the u16 view of the used ring; and where its elements start, in bytes.
const USED_FLAGS = 0;
const USED_IDX = 1;
const USED_RING = 4;
const USED_ELEMENT = 8;

/** Objects for requests that are made at once, when one of them is needed. */
const CHAINS_AT_ONCE = 16;

// Apart from where they are thrown: what is short is compiled into the loops that use it.

function tooFar(seen: number, distance: number, next: number, size: number): RingError {
  return new RingError(
    `available index ${seen} is ${distance} ahead of ${next}, more than the ring's ${size} entries`,
    { section: "2.7.6.1" },
  );
}

function noHead(head: number, next: number, size: number): RingError {
  return new RingError(`head ${head} at available index ${next}: the table has ${size} descriptors`, {
    section: "2.7.6",
  });
}

function noNext(head: number, descriptor: number, index: number, size: number): RingError {
  return new RingError(`next descriptor ${index} of head ${head}: the table has ${size}`, {
    section: "2.7.5",
    descriptor,
  });
}

function loop(head: number, size: number): RingError {
  return new RingError(`chain of head ${head} has a loop: more than ${size} descriptors`, {
    section: "2.7.5.2",
    descriptor: head,
  });
}

function twice(head: number): RingError {
  return new RingError(`head ${head} was made available again before it was returned`, {
    section: "2.7.13",
    descriptor: head,
  });
}

/**
 * The device's side of a split ring. Its fields are little-endian. What a ring of the other byte order does otherwise it does
 * in the protected methods, none of which is called for each request.
 */
export class SplitRing implements Ring {
  /** Entries, a power of two. */
  readonly size: number;
  /** Where to mark what the device has written to, if anywhere (LOG_ALL). */
  log: DirtyLog | undefined = undefined;
  /** The guest address by which what the ring itself writes is marked too, if at all (VHOST_VRING_F_LOG). */
  logUsed: number | undefined = undefined;
  readonly #options: RingOptions;
  readonly #mask: number;
  readonly #space: AddressSpace;
  readonly #descriptors: Descriptors;
  readonly #order: ReturnOrder | undefined;
  readonly #inflight: InflightSplit | undefined;
  /** By head. */
  readonly #chains: Chain[];
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
  /** {@link Chain.place} of the next request. */
  #place = 0;
  /** The descriptor table as the driver has it, and as requests are read from it. */
  #guestWords: Uint32Array = new Uint32Array(0);
  #words: Uint32Array = new Uint32Array(0);
  #available: Uint16Array = new Uint16Array(0);
  /** The available ring as heads are read from it. */
  #heads: Uint16Array = new Uint16Array(0);
  #usedIndex: Uint16Array = new Uint16Array(0);
  #usedRing: Uint32Array = new Uint32Array(0);

  /**
   * Takes over a ring where the driver, or an earlier device, left it.
   *
   * @throws {RangeError} when the size is no power of two up to 32768
   * @throws {RingError} when the in-flight region makes no sense
   */
  constructor(space: AddressSpace, size: number, place: RingPlace, options: RingOptions) {
    if (!Number.isInteger(size) || size < 1 || size > MAX_RING_SIZE || (size & (size - 1)) !== 0) {
      throw new RangeError(`split ring size must be a power of two up to ${MAX_RING_SIZE}, got ${size}`);
    }
    this.size = size;
    this.#mask = size - 1;
    this.#space = space;
    this.#options = options;
    this.#descriptors = new Descriptors(space, size, options.indirect, this.makeTable());
    this.#order = options.inOrder ? new ReturnOrder(size) : undefined;
    this.#chains = new Array(size);
    this.bind(place);
    const used = this.half(Atomics.load(this.#usedIndex, USED_IDX));
    this.#used = this.#published = used;
    this.#next = options.base & 0xffff;
    if (options.inflight !== undefined) {
      const inflight = this.#inflight = new InflightSplit(options.inflight, size, used);
      if (inflight.recovered) this.#next = (used + inflight.left) & 0xffff;
    }
    this.#seen = this.#next;
  }

  /** The ring's memory has moved; positions stay. */
  bind({ descriptor, available, used }: RingPlace): void {
    const bytes = splitRingSizes(this.size, this.#options.eventIdx);
    this.#guestWords = new Uint32Array(
      descriptor.region.buffer,
      partOffset(descriptor),
      bytes.descriptor / 4,
    );
    this.#available = new Uint16Array(available.region.buffer, partOffset(available), bytes.available / 2);
    this.#words = this.wordsOf(this.#guestWords, this.#words);
    this.#heads = this.headsOf(this.#available, this.#heads);
    this.#usedIndex = new Uint16Array(used.region.buffer, partOffset(used), bytes.used / 2);
    this.#usedRing = new Uint32Array(used.region.buffer, partOffset(used) + USED_RING, 2 * this.size);
  }

  /** Byte order of the ring's fields. */
  protected get littleEndian(): boolean {
    return true;
  }

  /** 16 bits of the ring, as read or as to be written. */
  protected half(value: number): number {
    return value;
  }

  /** The object for the requests of a head. */
  protected makeChain(head: number): Chain {
    return new Chain(head);
  }

  /** The words of an indirect table. */
  protected makeTable(): Segments {
    return new Segments();
  }

  /** Where descriptors are read: in the driver's table, or in a copy, such as the one that there was before. */
  protected wordsOf(guest: Uint32Array, _before: Uint32Array): Uint32Array {
    return guest;
  }

  /** The same for the available ring. */
  protected headsOf(guest: Uint16Array, _before: Uint16Array): Uint16Array {
    return guest;
  }

  /** Where heads are copied, copies one. */
  protected copyHead(_guest: Uint16Array, _heads: Uint16Array, _at: number): void {}

  /** Where descriptors are copied, copies those of a request. */
  protected copyChain(_guest: Uint32Array, _words: Uint32Array, _head: number): void {}

  /** Turns elements of the used ring around, which the driver does not see yet, where its byte order wants that. */
  protected turnElements(_ring: Uint32Array, _from: number, _count: number): void {}

  /** Copies the next request, which must be {@link available}. For rings that read copies, before they {@link pop}. */
  protected copyNext(): void {
    const at = AVAIL_RING + (this.#next & this.#mask);
    this.copyHead(this.#available, this.#heads, at);
    this.copyChain(this.#guestWords, this.#words, this.#heads[at]);
  }

  /** The ring as it is now. */
  dump(offending?: number): RingDump {
    const { size } = this;
    const { eventIdx } = this.#options;
    const available = (at: number): number => this.half(this.#available[at]);
    const used = (at: number): number => this.half(this.#usedIndex[at]);
    const table = this.#guestWords;
    const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
    const head = available(AVAIL_RING + (this.#next & this.#mask));
    const center = offending ?? head;
    return {
      format: "split",
      inFlight: this.#inFlight,
      fields: {
        "avail.flags": available(AVAIL_FLAGS),
        "avail.idx": available(AVAIL_IDX),
        ...eventIdx ? { "avail.used_event": available(AVAIL_RING + size) } : {},
        "used.flags": used(USED_FLAGS),
        "used.idx": used(USED_IDX),
        ...eventIdx ? { "used.avail_event": used(2 + 4 * size) } : {},
        "device.next": this.#next,
        "device.used": this.#used,
      },
      heads: around(this.#next & this.#mask, size).map((index) => ({
        index,
        head: available(AVAIL_RING + index),
      })),
      descriptors: center < size
        ? dumpDescriptors(view, around(center, size), offending, false, this.littleEndian)
        : [],
    };
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
    return this.#next !== this.#seen || this.half(Atomics.load(this.#available, AVAIL_IDX)) !== this.#next ||
      this.#again > 0;
  }

  /** Requests of a device that died, to be taken before new ones. */
  get #again(): number {
    return this.#inflight === undefined ? 0 : this.#inflight.left;
  }

  /**
   * Takes the next request, or `null` when there is none.
   *
   * @throws {RingError} when the driver broke the ring
   */
  pop(): Chain | null {
    if (this.#again > 0) return this.#popAgain();
    if (this.#next === this.#seen) {
      const seen = this.half(Atomics.load(this.#available, AVAIL_IDX));
      if (seen === this.#next) return null;
      const distance = (seen - this.#next) & 0xffff;
      if (distance > this.size) throw tooFar(seen, distance, this.#next, this.size);
      this.#seen = seen;
    }
    const head = this.#heads[AVAIL_RING + (this.#next & this.#mask)];
    if (head >= this.size) throw noHead(head, this.#next, this.size);
    const chain = this.#take(head);
    this.#inflight?.take(head);
    this.#next = (this.#next + 1) & 0xffff;
    return chain;
  }

  /** Takes a request of a device that died. Its descriptors are where they were: nobody has returned them. */
  #popAgain(): Chain {
    const inflight = this.#inflight as InflightSplit;
    this.copyChain(this.#guestWords, this.#words, inflight.first);
    const chain = this.#take(inflight.first);
    inflight.retake();
    return chain;
  }

  /**
   * Takes the request of a head. Each descriptor is copied once; only the copy is checked and used.
   *
   * One function on purpose, and longer than what V8 compiles into its callers (460 bytes of bytecode): so what it calls for
   * each descriptor is always compiled into it. In pieces, it depended on the order in which they became hot how far
   * the compiler's budget went, and a ring was slower by a fifth in one process of three.
   */
  #take(head: number): Chain {
    const chain = this.#chains[head] ?? this.#makeChains(head);
    if (chain.inFlight) throw twice(head);
    const { readable, writable } = chain;
    // What is left of descriptors that could not be read, or of a device that does not know that the ring was stopped.
    if (readable.count > 0 || writable.count > 0 || chain.written > 0) chain.reset();
    const words = this.#words;
    const space = this.#space;
    let index = head;
    for (let count = 1;; count++) {
      if (count > this.size) throw loop(head, this.size);
      const at = index * 4;
      const low = words[at] | 0;
      const high = words[at + 1] | 0;
      const length = words[at + 2];
      const last = words[at + 3];
      if ((last & INDIRECT) !== 0) {
        this.#descriptors.appendLinked(chain, head, index, low, high, length, last & 0xffff);
        break;
      }
      const writes = (last & WRITE) !== 0;
      if (
        (!writes && writable.count > 0) ||
        (length > 0 && !space.appendWords(writes ? writable : readable, low, high, length, writes))
      ) {
        throw this.#descriptors.refused(chain, head, index, low, high, length, last & 0xffff);
      }
      if ((last & NEXT) === 0) break;
      const next = last >>> 16;
      if (next >= this.size) throw noNext(head, index, next, this.size);
      index = next;
    }
    checkLength(chain, head, "2.7.5.2");
    chain.inFlight = true;
    this.#inFlight++;
    chain.place = this.#place;
    if (++this.#place === this.size) this.#place = 0;
    return chain;
  }

  /** Makes objects for the requests of some heads, one of them this; few rings ever need all. */
  #makeChains(head: number): Chain {
    const from = head - head % CHAINS_AT_ONCE;
    const to = Math.min(from + CHAINS_AT_ONCE, this.size);
    for (let each = from; each < to; each++) this.#chains[each] = this.makeChain(each);
    return this.#chains[head];
  }

  /** Returns a request; the driver sees it after {@link publish}. */
  push(chain: Chain): void {
    const order = this.#order;
    if (order === undefined) return this.#return(chain);
    if (!order.complete(chain)) return;
    this.#return(chain);
    for (let next = order.next(); next !== undefined; next = order.next()) this.#return(next);
  }

  #return(chain: Chain): void {
    if (this.log !== undefined) chain.writable.markDirty(this.log);
    this.#inflight?.return(chain.head);
    const slot = (this.#used & this.#mask) * 2;
    this.#usedRing[slot] = chain.head;
    this.#usedRing[slot + 1] = chain.written;
    this.#used = (this.#used + 1) & 0xffff;
    chain.inFlight = false;
    chain.reset();
    this.#inFlight--;
  }

  /** The requests that were taken and not yet returned. */
  taken(): Chain[] {
    return this.#chains.filter((chain) => chain.inFlight);
  }

  /** Makes the requests that were taken and not yet returned available again. Returns whether that is possible. */
  rewind(): boolean {
    if (this.#inflight?.lost) return false;
    for (const chain of newestFirst(this.taken(), this.#place, this.size)) {
      if (this.log !== undefined) chain.writable.markDirty(this.log);
      this.#inflight?.untake(chain.head);
      chain.inFlight = false;
      chain.reset();
    }
    this.#order?.clear();
    this.#place = 0;
    this.#next = this.#seen = (this.#next - this.#inFlight) & 0xffff;
    this.#inFlight = 0;
    return true;
  }

  /** Shows the driver what was returned. Returns whether it wants to be told. */
  publish(): boolean {
    const after = this.#used;
    const before = this.#published;
    if (after === before) return false;
    this.turnElements(this.#usedRing, before, (after - before) & 0xffff);
    this.#inflight?.prepare();
    // Both accesses are sequentially consistent: the driver either sees the index, or we see what it wants.
    Atomics.store(this.#usedIndex, USED_IDX, this.half(after));
    this.#inflight?.commit(after);
    this.#published = after;
    if (this.logUsed !== undefined) this.#markElements(before, after);
    if (!this.#notified) return this.#notified = true;
    if (this.#options.eventIdx) {
      const event = this.half(Atomics.load(this.#available, AVAIL_RING + this.size));
      return needEvent(event, after, before);
    }
    return (this.half(Atomics.load(this.#available, AVAIL_FLAGS)) & NO_INTERRUPT) === 0;
  }

  /** Marks the index and the elements up to it as written. */
  #markElements(before: number, after: number): void {
    this.#markUsed(2 * USED_IDX, 2);
    const from = before & this.#mask;
    const end = from + (after - before & 0xffff);
    this.#markUsed(USED_RING + USED_ELEMENT * from, USED_ELEMENT * (Math.min(end, this.size) - from));
    if (end > this.size) this.#markUsed(USED_RING, USED_ELEMENT * (end - this.size));
  }

  /** Marks bytes of the used ring as written. */
  #markUsed(offset: number, length: number): void {
    if (this.logUsed !== undefined) this.log?.mark(this.logUsed + offset, length);
  }

  /** Asks the driver not to tell of new requests. */
  suppress(): void {
    // With EVENT_IDX an index in the past asks for nothing, so there is nothing to write.
    if (this.#suppressed || this.#options.eventIdx) return;
    this.#suppressed = true;
    this.#usedIndex[USED_FLAGS] = this.half(NO_NOTIFY);
    this.#markUsed(2 * USED_FLAGS, 2);
  }

  /** Asks the driver to tell of new requests. Returns whether some came in before it could know. */
  arm(): boolean {
    // The event's place is behind the elements.
    const field = this.#options.eventIdx ? 2 + 4 * this.size : USED_FLAGS;
    this.#suppressed = false;
    Atomics.store(this.#usedIndex, field, this.half(this.#options.eventIdx ? this.#next : 0));
    this.#markUsed(2 * field, 2);
    return this.available();
  }
}
