/**
 * The device's side of the packed ring (virtio 1.4, section 2.8).
 *
 * @module
 */

import type { AddressSpace } from "../memory/address_space.ts";
import type { DirtyLog } from "../memory/dirty_log.ts";
import { Chain } from "./chain.ts";
import { checkLength, Descriptors, packedSections, partOffset } from "./descriptors.ts";
import { InflightPacked } from "./inflight_packed.ts";
import {
  availableFlags,
  EVENT_SIZE,
  EventFlag,
  needPackedEvent,
  PACKED_OWNER,
  packedBase,
  PackedFlag,
  packedPosition,
  packedRingSizes,
  usedFlags,
  WRAP,
} from "./packed_layout.ts";
import { newestFirst, ReturnOrder } from "./return_order.ts";
import { type Ring, RingError, type RingOptions, type RingPlace } from "./ring.ts";
import { around, dumpDescriptors, type RingDump } from "./ring_dump.ts";
import { DESCRIPTOR_SIZE, DescriptorFlag, MAX_RING_SIZE } from "./split_layout.ts";

// Constants of this file are compiled in, those of other files are loaded each time.
const { NEXT, WRITE, INDIRECT } = DescriptorFlag;
const OWNER = PACKED_OWNER;

// Fields of a descriptor as places in 32-bit words.
const ADDRESS = 0;
const LENGTH = 2;
const ID_AND_FLAGS = 3;
// And in 16-bit words.
const ID = 6;
const FLAGS = 7;

/** Objects for requests that are made at once, when there are too few. */
const CHAINS_AT_ONCE = 16;

// Apart from where they are thrown: what is short is compiled into the loops that use it.

function tooMany(head: number, most: number): RingError {
  return new RingError(`chain of head ${head}: more than ${most} descriptors, all that are not in flight`, {
    section: "2.8.17",
    descriptor: head,
  });
}

function mixed(head: number, index: number): RingError {
  return new RingError(`descriptor ${index} of head ${head}: INDIRECT in a chain`, {
    section: "2.8.19",
    descriptor: index,
  });
}

/** The device's side of a packed ring. */
export class PackedRing implements Ring {
  /** Entries, from 1 to 32768. */
  readonly size: number;
  /** Where to mark what the device has written to, if anywhere (LOG_ALL). */
  log: DirtyLog | undefined = undefined;
  /** Whether what the ring itself writes is marked too (VHOST_VRING_F_LOG), by its own addresses; any number will do. */
  logUsed: number | undefined = undefined;
  readonly #options: RingOptions;
  readonly #space: AddressSpace;
  readonly #descriptors: Descriptors;
  readonly #order: ReturnOrder | undefined;
  readonly #inflight: InflightPacked | undefined;
  /**
   * Requests that are not in flight, the first {@link #idleCount}. Neither slots nor buffer ids name a request: a slot may
   * have the next one while the last is still in flight, and ids are whatever the driver says.
   */
  readonly #idle: Chain[] = [];
  /** All that were ever made, in flight or not. */
  readonly #all: Chain[] = [];
  #idleCount = 0;
  #inFlight = 0;
  /** {@link Chain.place} of the next request. */
  #place = 0;
  /** Descriptors that the driver has made available and not got back. */
  #taken = 0;
  /** Next slot to take, and the flags that say that it is available. */
  #next = 0;
  #nextFlags = 0;
  /** Next slot to return, and the flags that say that it was. */
  #used = 0;
  #usedFlags = 0;
  /** Where the used position was when it was last shown. */
  #published = 0;
  /** The flags that will show everything that was returned since then; -1 when nothing was. */
  #hidden = -1;
  /** Whether the driver's wishes can be compared with what it saw before: not for the first notification. */
  #notified = false;
  #suppressed = false;
  #words: Uint32Array = new Uint32Array(0);
  /** The same with a sign: what is loaded atomically stays a small number then, and is not allocated. */
  #signed: Int32Array = new Int32Array(0);
  #halves: Uint16Array = new Uint16Array(0);
  #driverEvent: Int32Array = new Int32Array(0);
  #deviceEvent: Int32Array = new Int32Array(0);
  /** Guest addresses of what the ring writes, for the log. */
  #ringAddress = 0;
  #eventAddress = 0;

  /**
   * Takes over a ring where the driver, or an earlier device, left it.
   *
   * @throws {RangeError} when the size is not from 1 to 32768
   * @throws {RingError} when the base names a slot that the ring does not have, or the in-flight region makes no sense
   */
  constructor(space: AddressSpace, size: number, place: RingPlace, options: RingOptions) {
    if (!Number.isInteger(size) || size < 1 || size > MAX_RING_SIZE) {
      throw new RangeError(`packed ring size must be from 1 to ${MAX_RING_SIZE}, got ${size}`);
    }
    this.size = size;
    this.#options = options;
    this.#space = space;
    this.#descriptors = new Descriptors(space, size, options.indirect, undefined, packedSections);
    this.#order = options.inOrder ? new ReturnOrder(size) : undefined;
    this.bind(place);
    let [next, used] = this.#positions(options.base);
    if (options.inflight !== undefined) {
      const inflight = this.#inflight = new InflightPacked(options.inflight, size, this.#halves, used);
      if (inflight.recovered) {
        next = inflight.next;
        used = inflight.used;
        this.#taken = inflight.slots;
      }
    }
    this.#next = next & ~WRAP;
    this.#nextFlags = availableFlags(next >= WRAP);
    this.#used = this.#published = used & ~WRAP;
    this.#usedFlags = usedFlags(used >= WRAP);
  }

  /** What a base says: the positions of the next descriptor to take and of the next to return. */
  #positions(base: number): [next: number, used: number] {
    // User-Mode Linux starts a packed ring with the 0 of a split one. That is only a position in a ring that has gone round.
    if (base === 0 && !this.#hasGoneRound()) return [WRAP, WRAP];
    const next = base & 0xffff;
    // A peer that knows of one position only (DPDK) gives it in the lower half.
    const used = base >>> 16 === 0 && next >= WRAP ? next : base >>> 16;
    for (const [name, slot] of [["available", next & ~WRAP], ["used", used & ~WRAP]] as const) {
      if (slot >= this.size) {
        throw new RingError(
          `base: next ${name} slot must be below the ring's ${this.size} entries, got ${slot}`,
        );
      }
    }
    return [next, used];
  }

  /** Whether a device has returned anything: until then no descriptor has USED, as rings start with zeros. */
  #hasGoneRound(): boolean {
    for (let slot = 0; slot < this.size; slot++) {
      if ((this.#halves[slot * 8 + FLAGS] & PackedFlag.USED) !== 0) return true;
    }
    return false;
  }

  /** The ring's memory has moved; positions stay. */
  bind({ descriptor, available, used }: RingPlace): void {
    const bytes = packedRingSizes(this.size).descriptor;
    this.#words = new Uint32Array(descriptor.region.buffer, partOffset(descriptor), bytes / 4);
    this.#signed = new Int32Array(descriptor.region.buffer, partOffset(descriptor), bytes / 4);
    this.#halves = new Uint16Array(descriptor.region.buffer, partOffset(descriptor), bytes / 2);
    this.#driverEvent = new Int32Array(available.region.buffer, partOffset(available), EVENT_SIZE / 4);
    this.#deviceEvent = new Int32Array(used.region.buffer, partOffset(used), EVENT_SIZE / 4);
    this.#ringAddress = descriptor.region.guestAddress + descriptor.offset;
    this.#eventAddress = used.region.guestAddress + used.offset;
  }

  /** The ring as it is now. */
  dump(offending?: number): RingDump {
    const { size } = this;
    const words = this.#words;
    const event = (name: string, word: number): Record<string, number> => ({
      [`${name}.off_wrap`]: word & 0xffff,
      [`${name}.flags`]: word >>> 16 & 3,
    });
    const view = new DataView(words.buffer, words.byteOffset, words.byteLength);
    const center = offending ?? this.#next;
    return {
      format: "packed",
      inFlight: this.#inFlight,
      fields: {
        ...event("driver_event", this.#driverEvent[0]),
        ...event("device_event", this.#deviceEvent[0]),
        "device.next": this.#next,
        "device.next_wrap": this.#nextPosition >>> 15,
        "device.used": this.#used,
        "device.used_wrap": this.#usedPosition >>> 15,
      },
      descriptors: center < size ? dumpDescriptors(view, around(center, size), offending, true) : [],
    };
  }

  /** Requests taken and not yet returned. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** The next slot to take and the next to return, each with its wrap counter: all 32 bits of SET_VRING_BASE. */
  get base(): number {
    return packedBase(this.#nextPosition, this.#usedPosition);
  }

  get #nextPosition(): number {
    return packedPosition(this.#next, this.#nextFlags === availableFlags(true));
  }

  get #usedPosition(): number {
    return packedPosition(this.#used, this.#usedFlags === usedFlags(true));
  }

  /** Whether the driver has made something available that was not taken yet. */
  available(): boolean {
    return this.#isAvailable(this.#look()) || this.#again > 0;
  }

  /** Requests of a device that died, to be taken before new ones. */
  get #again(): number {
    return this.#inflight === undefined ? 0 : this.#inflight.left;
  }

  /** The last word of the next descriptor, before anything else of it. */
  #look(): number {
    return Atomics.load(this.#signed, this.#next * 4 + ID_AND_FLAGS);
  }

  #isAvailable(word: number): boolean {
    return (word >>> 16 & OWNER) === this.#nextFlags;
  }

  /**
   * Takes the next request, or `null` when there is none.
   *
   * @throws {RingError} when the driver broke the ring
   */
  pop(): Chain | null {
    if (this.#again > 0) return this.#popAgain();
    const word = this.#look();
    if (!this.#isAvailable(word)) return null;
    const slot = this.#next;
    if (this.#taken === this.size) throw tooMany(slot, 0);
    const chain = this.#take(this.#words, slot, word, this.size - this.#taken);
    const count = chain.slots;
    this.#inflight?.take(chain.head, count);
    this.#taken += count;
    const next = slot + count;
    if (next < this.size) {
      this.#next = next;
    } else {
      this.#next = next - this.size;
      this.#nextFlags ^= OWNER;
    }
    return chain;
  }

  /** Takes a request of a device that died, from the record of it. */
  #popAgain(): Chain {
    const inflight = this.#inflight as InflightPacked;
    const count = inflight.load();
    const record = inflight.descriptors;
    const chain = this.#take(record, 0, record[ID_AND_FLAGS] | 0, count);
    if (chain.slots !== count) {
      throw new RingError(
        `in-flight region: num of a request must be ${chain.slots}, as it is linked, got ${count}`,
      );
    }
    inflight.retake(chain.head);
    return chain;
  }

  /** Makes objects for some requests, when all that there are are in flight. Returns the one to use first. */
  #makeChains(): Chain {
    const made = this.#inFlight;
    const count = Math.min(CHAINS_AT_ONCE, this.size - made);
    for (let i = 0; i < count; i++) this.#idle[i] = new Chain(made + count - 1 - i);
    this.#all.push(...this.#idle.slice(0, count));
    this.#idleCount = count;
    return this.#idle[count - 1];
  }

  /**
   * Takes a request. Each descriptor is copied once; only the copy is checked and used. One function on purpose: see
   * `SplitRing`.
   *
   * @param words the ring, or the record of it
   * @param first slot of the first descriptor
   * @param word its id and flags, which were read to see that it is there
   * @param most descriptors that it may have
   */
  #take(words: Uint32Array, first: number, word: number, most: number): Chain {
    const chain = this.#idleCount > 0 ? this.#idle[this.#idleCount - 1] : this.#makeChains();
    const { readable, writable } = chain;
    // What is left of descriptors that could not be read, or of a device that does not know that the ring was stopped.
    if (readable.count > 0 || writable.count > 0 || chain.written > 0) chain.reset();
    const space = this.#space;
    const record = this.#inflight?.descriptors;
    let slot = first;
    let last = word;
    let count = 1;
    for (;; count++) {
      if (count > most) throw tooMany(first, most);
      const at = slot * 4;
      const low = words[at + ADDRESS] | 0;
      const high = words[at + ADDRESS + 1] | 0;
      const length = words[at + LENGTH];
      const flags = last >>> 16;
      if (record !== undefined) {
        const to = (count - 1) * 4;
        record[to + ADDRESS] = low;
        record[to + ADDRESS + 1] = high;
        record[to + LENGTH] = length;
        record[to + ID_AND_FLAGS] = last;
      }
      if ((flags & INDIRECT) !== 0) {
        // Descriptors of both kinds do not mix (virtio 1.4, 2.8.5).
        if (count > 1) throw mixed(first, slot);
        this.#descriptors.appendPacked(chain, first, slot, low, high, length, flags);
      } else {
        const writes = (flags & WRITE) !== 0;
        if (
          (!writes && writable.count > 0) ||
          (length > 0 && !space.appendWords(writes ? writable : readable, low, high, length, writes))
        ) {
          throw this.#descriptors.refused(chain, first, slot, low, high, length, flags);
        }
      }
      if ((flags & NEXT) === 0) break;
      if (++slot === this.size) slot = 0;
      last = words[slot * 4 + ID_AND_FLAGS] | 0;
    }
    checkLength(chain, first);
    chain.id = last & 0xffff;
    chain.slots = count;
    chain.inFlight = true;
    this.#idleCount--;
    this.#inFlight++;
    chain.place = this.#place;
    if (++this.#place === this.size) this.#place = 0;
    return chain;
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
    const slot = this.#used;
    const flags = chain.written > 0 ? this.#usedFlags | WRITE : this.#usedFlags;
    this.#words[slot * 4 + LENGTH] = chain.written;
    this.#halves[slot * 8 + ID] = chain.id;
    // The driver looks at the first descriptor only, until it is returned: its flags show all of them.
    if (this.#hidden < 0) this.#hidden = flags;
    else this.#halves[slot * 8 + FLAGS] = flags;
    const next = slot + chain.slots;
    if (next < this.size) {
      this.#used = next;
    } else {
      this.#used = next - this.size;
      this.#usedFlags ^= OWNER;
    }
    this.#taken -= chain.slots;
    this.#inFlight--;
    this.#idle[this.#idleCount++] = chain;
    chain.inFlight = false;
    chain.reset();
  }

  /** The requests that were taken and not yet returned. */
  taken(): Chain[] {
    return this.#all.filter((chain) => chain.inFlight);
  }

  /** Makes the requests that were taken and not yet returned available again. Returns whether that is possible. */
  rewind(): boolean {
    const inflight = this.#inflight;
    if (inflight?.lost) return false;
    for (const chain of newestFirst(this.taken(), this.#place, this.size)) {
      if (this.log !== undefined) chain.writable.markDirty(this.log);
      inflight?.untake(chain.head);
      this.#idle[this.#idleCount++] = chain;
      chain.inFlight = false;
      chain.reset();
    }
    this.#order?.clear();
    this.#place = 0;
    // What was taken comes right after what was returned.
    this.#next = this.#used;
    this.#nextFlags = availableFlags(this.#usedFlags === usedFlags(true));
    this.#taken = 0;
    this.#inFlight = 0;
    return true;
  }

  /** Shows the driver what was returned. Returns whether it wants to be told. */
  publish(): boolean {
    if (this.#hidden < 0) return false;
    const before = this.#published;
    const after = this.#usedPosition;
    this.#inflight?.prepare(after);
    // Everything of the batch before its flags; and what the driver wants only after them.
    Atomics.store(this.#halves, before * 8 + FLAGS, this.#hidden);
    this.#inflight?.commit();
    this.#hidden = -1;
    this.#published = this.#used;
    if (this.logUsed !== undefined) this.#markUsed(before);
    if (!this.#notified) return this.#notified = true;
    const event = Atomics.load(this.#driverEvent, 0);
    return needPackedEvent(event, this.#options.eventIdx, after, before, this.size);
  }

  /** Marks the descriptors from one to the next to be returned as written; those that were skipped do not matter. */
  #markUsed(from: number): void {
    const to = this.#used;
    if (from < to) return this.#markSlots(from, to);
    this.#markSlots(from, this.size);
    this.#markSlots(0, to);
  }

  #markSlots(from: number, to: number): void {
    this.log?.mark(this.#ringAddress + from * DESCRIPTOR_SIZE, (to - from) * DESCRIPTOR_SIZE);
  }

  /** Asks the driver not to tell of new requests. */
  suppress(): void {
    if (this.#suppressed) return;
    this.#suppressed = true;
    this.#deviceEvent[0] = EventFlag.DISABLE << 16;
    this.#markEvent();
  }

  /** Asks the driver to tell of new requests. Returns whether some came in before it could know. */
  arm(): boolean {
    this.#suppressed = false;
    const event = this.#options.eventIdx ? EventFlag.DESC << 16 | this.#nextPosition : EventFlag.ENABLE << 16;
    Atomics.store(this.#deviceEvent, 0, event);
    this.#markEvent();
    return this.available();
  }

  #markEvent(): void {
    if (this.logUsed !== undefined) this.log?.mark(this.#eventAddress, EVENT_SIZE);
  }
}
