/**
 * In-flight tracking of a packed ring (vhost-user, "Inflight I/O tracking": queue region for packed virtqueue).
 *
 * Used descriptors overwrite available ones, so the record holds copies. A request takes one entry for each of its
 * descriptors from a list of free entries; the first of them names it.
 *
 * @module
 */

import { InflightLayout, type InflightRegion, InflightViews, inOrderOf, wrongInflight } from "./inflight.ts";
import {
  advancePosition,
  availableFlags,
  PACKED_OWNER,
  packedPosition,
  usedFlags,
  WRAP,
} from "./packed_layout.ts";

const { header, entry } = InflightLayout.packed;

// Fields of the header as places in 16-bit words, and the wrap counters in bytes.
const FREE_HEAD = 6;
const OLD_FREE_HEAD = 7;
const USED_IDX = 8;
const OLD_USED_IDX = 9;
const USED_WRAP = 20;
const OLD_USED_WRAP = 21;
// Fields of an entry as byte offsets. From ID on it has the descriptor: id and flags, length, address.
const NEXT = 2;
const LAST = 4;
const NUM = 6;
const ID = 16;
const LENGTH = 20;
const ADDRESS = 24;

/** First byte of an entry. */
function entryAt(index: number): number {
  return header + entry * index;
}

/** What a region says, after it was checked. */
interface Found {
  /** First entry of the free list; the number of entries when there is none. */
  readonly free: number;
  /** Free entries that still have the flag of a request. */
  readonly stale: readonly number[];
  /** Requests to take again: their first entries, the first taken first. */
  readonly lost: readonly number[];
  /** The counter to go on with. */
  readonly counter: number;
  /** Descriptors of the ring that these take. */
  readonly slots: number;
  /** The position of the next descriptor to be returned. */
  readonly used: number;
}

/** The record of the requests that are in flight in a packed ring. */
export class InflightPacked {
  /** Whether a device was here before: then {@link used} and {@link next} come from here. */
  readonly recovered: boolean;
  /** Position of the next descriptor to be returned. */
  readonly used: number;
  /** Position of the next descriptor to be taken. */
  readonly next: number;
  /** Descriptors of the ring between them. */
  readonly slots: number;
  /** The descriptors of the request that is being taken, or taken again: as in the ring, from place 0 on. */
  readonly descriptors: Uint32Array;
  readonly #views: InflightViews;
  /** The region as it was found, for the requests that are to be taken again. */
  readonly #copy: InflightViews;
  readonly #lost: readonly number[];
  #lostAt = 0;
  /** By {@link Chain.head}: those that are in flight again. */
  readonly #retaken = new Set<number>();
  #counter = 0;
  /** Our own copy of the links: those in the region are only written. */
  readonly #next: Uint16Array;
  #free = 0;
  /** By first entry: the last entry of a request. */
  readonly #last: Uint16Array;
  /** By {@link Chain.head}: the first entry of a request. */
  readonly #entries: Uint16Array;
  /** First entries of the requests that were returned since they were last shown. */
  readonly #batch: Uint16Array;
  #batchCount = 0;
  #prepared = 0;

  /**
   * Takes over what a device left behind, or makes a new record.
   *
   * @param size entries of the ring
   * @param flags the descriptor ring in 16-bit words; flags that the last device has left there half done are put right
   * @param base position of the next descriptor to be returned, for a new record
   * @throws {RingError} when what is there makes no sense
   */
  constructor(region: InflightRegion, size: number, flags: Uint16Array, base: number) {
    const views = this.#views = InflightViews.of(region, true, size);
    const copy = this.#copy = views.copy();
    this.recovered = copy.used;
    const entries = copy.used ? copy.check(true, size) : size;
    this.#next = new Uint16Array(entries);
    this.#last = new Uint16Array(entries);
    this.#entries = new Uint16Array(size);
    this.#batch = new Uint16Array(size);
    this.descriptors = new Uint32Array(4 * size);
    if (copy.used) {
      const found = this.#check(copy, size, flags);
      this.#settle(found, size, flags);
      this.#lost = found.lost;
      this.#counter = found.counter;
      this.#free = found.free;
      this.used = found.used;
      this.slots = found.slots;
    } else {
      for (let i = 0; i < size; i++) this.#next[i] = i + 1;
      views.initialize(size, () => {
        for (let i = 0; i < size; i++) views.halves[(entryAt(i) + NEXT) / 2] = i + 1;
        views.halves[USED_IDX] = views.halves[OLD_USED_IDX] = base & ~WRAP;
        views.bytes[USED_WRAP] = views.bytes[OLD_USED_WRAP] = base >>> 15;
      });
      this.#lost = [];
      this.used = base;
      this.slots = 0;
    }
    this.next = advancePosition(this.used, this.slots, size);
  }

  /** Which requests are in flight. Checks every field on the way. */
  #check(copy: InflightViews, size: number, flags: Uint16Array): Found {
    const entries = this.#next.length;
    const committed = this.#committed(copy, size, flags);
    const free = copy.halves[committed ? FREE_HEAD : OLD_FREE_HEAD];
    const used = packedPosition(
      copy.halves[committed ? USED_IDX : OLD_USED_IDX],
      copy.bytes[committed ? USED_WRAP : OLD_USED_WRAP] === 1,
    );
    const seen = new Uint8Array(entries);
    const see = (index: number, field: string): void => {
      if (index >= entries) wrongInflight(field, `below ${entries}`, index);
      if (seen[index] === 1) wrongInflight(field, "an entry that nothing else has", index);
      seen[index] = 1;
      this.#next[index] = copy.halves[(entryAt(index) + NEXT) / 2];
    };
    let total = 0;
    const stale: number[] = [];
    let field = committed ? "free_head" : "old_free_head";
    for (let index = free; index !== entries; index = this.#next[index], total++) {
      see(index, field);
      if (copy.inflight(index, entryAt(index))) stale.push(index);
      field = `next of entry ${index}`;
    }
    const heads: number[] = [];
    for (let index = 0; index < entries; index++) {
      if (seen[index] === 0 && copy.inflight(index, entryAt(index))) heads.push(index);
    }
    let slots = 0;
    for (const head of heads) {
      const count = copy.halves[(entryAt(head) + NUM) / 2];
      if (count < 1 || slots + count > size) {
        wrongInflight(`num of entry ${head}`, `from 1 to ${size - slots}`, count);
      }
      slots += count;
      let index = head;
      see(index, `entry ${head}`);
      for (let i = 1; i < count; i++) {
        const from = index;
        index = this.#next[from];
        see(index, `next of entry ${from}`);
      }
      const last = copy.halves[(entryAt(head) + LAST) / 2];
      if (last !== index) wrongInflight(`last of entry ${head}`, `${index}, the entry at its end`, last);
      this.#last[head] = last;
    }
    if (total + slots !== entries) {
      wrongInflight("entries", `${entries}, free or of a request`, total + slots);
    }
    const { sorted, next } = inOrderOf(heads, (index) => copy.counter(index, entryAt(index)));
    return { free, stale, lost: sorted, counter: next, slots, used };
  }

  /**
   * Whether the last batch was shown to the driver before the device died: then what the header says counts, otherwise
   * what it said before the batch (the fields called "old").
   */
  #committed(copy: InflightViews, size: number, flags: Uint16Array): boolean {
    for (const [field, place] of [["used_idx", USED_IDX], ["old_used_idx", OLD_USED_IDX]] as const) {
      const slot = copy.halves[place];
      if (slot >= size) wrongInflight(field, `below ${size}`, slot);
    }
    for (
      const [field, at] of [
        ["used_wrap_counter", USED_WRAP],
        ["old_used_wrap_counter", OLD_USED_WRAP],
      ] as const
    ) {
      if (copy.bytes[at] > 1) wrongInflight(field, "0 or 1", copy.bytes[at]);
    }
    const slot = copy.halves[OLD_USED_IDX];
    const wrap = copy.bytes[OLD_USED_WRAP];
    // A batch of as many descriptors as the ring has changes the wrap counter only.
    if (slot === copy.halves[USED_IDX] && wrap === copy.bytes[USED_WRAP]) return false;
    return (Atomics.load(flags, slot * 8 + 7) & PACKED_OWNER) !== availableFlags(wrap === 1);
  }

  /** Brings region and ring to where the check says they are. Who dies in between leaves the same to do. */
  #settle({ free, stale, slots, used }: Found, size: number, flags: Uint16Array): void {
    // A batch is shown by the flags of its first descriptor; the others may have theirs already. The driver would take
    // them for returned when it gets there.
    for (let i = 0, position = used; i < slots; i++, position = advancePosition(position, 1, size)) {
      const at = (position & ~WRAP) * 8 + 7;
      const wrap = position >= WRAP;
      const now = Atomics.load(flags, at);
      if ((now & PACKED_OWNER) === usedFlags(wrap)) {
        Atomics.store(flags, at, now & ~PACKED_OWNER | availableFlags(wrap));
      }
    }
    const { bytes, halves } = this.#views;
    for (const index of stale) Atomics.store(bytes, entryAt(index), 0);
    Atomics.store(halves, FREE_HEAD, free);
    Atomics.store(halves, USED_IDX, used & ~WRAP);
    Atomics.store(bytes, USED_WRAP, used >>> 15);
    this.#conclude(free, used);
  }

  /**
   * Makes the header's fields the ones that count. The order matters: until the last store the position differs from the
   * old one, which makes the next device look at the ring, and find the batch there.
   */
  #conclude(free: number, used: number): void {
    const { bytes, halves } = this.#views;
    Atomics.store(halves, OLD_FREE_HEAD, free);
    Atomics.store(bytes, OLD_USED_WRAP, used >>> 15);
    Atomics.store(halves, OLD_USED_IDX, used & ~WRAP);
  }

  /** Requests that are still to be taken again. */
  get left(): number {
    return this.#lost.length - this.#lostAt;
  }

  /** Whether there are any, or any that were taken again and not returned since. */
  get lost(): boolean {
    return this.left > 0 || this.#retaken.size > 0;
  }

  /**
   * Puts the first of them into {@link descriptors}.
   *
   * @returns how many descriptors it has
   */
  load(): number {
    const { words, halves } = this.#copy;
    const head = this.#lost[this.#lostAt];
    const count = halves[(entryAt(head) + NUM) / 2];
    for (let i = 0, index = head; i < count; i++, index = this.#next[index]) {
      const at = entryAt(index) / 4;
      this.descriptors[4 * i] = words[at + ADDRESS / 4];
      this.descriptors[4 * i + 1] = words[at + ADDRESS / 4 + 1];
      this.descriptors[4 * i + 2] = words[at + LENGTH / 4];
      this.descriptors[4 * i + 3] = words[at + ID / 4];
    }
    return count;
  }

  /** It was taken, as request `head`. */
  retake(head: number): void {
    this.#entries[head] = this.#lost[this.#lostAt++];
    this.#retaken.add(head);
  }

  /** Request `head` was taken from the ring; its first `count` {@link descriptors} are recorded. */
  take(head: number, count: number): void {
    const { bytes, halves, words } = this.#views;
    const first = this.#free;
    this.#entries[head] = first;
    this.#views.setCounter(entryAt(first), this.#counter++);
    bytes[entryAt(first)] = 1;
    let last = first;
    for (let i = 0, index = first; i < count; i++, index = this.#next[index]) {
      const at = entryAt(index) / 4;
      words[at + ADDRESS / 4] = this.descriptors[4 * i];
      words[at + ADDRESS / 4 + 1] = this.descriptors[4 * i + 1];
      words[at + LENGTH / 4] = this.descriptors[4 * i + 2];
      words[at + ID / 4] = this.descriptors[4 * i + 3];
      last = index;
    }
    this.#last[first] = last;
    this.#free = this.#next[last];
    halves[(entryAt(first) + NUM) / 2] = count;
    halves[(entryAt(first) + LAST) / 2] = last;
    halves[FREE_HEAD] = this.#free;
    // Until here the entries are on the free list, and count for nothing.
    Atomics.store(halves, OLD_FREE_HEAD, this.#free);
  }

  /** Takes back {@link take}, step by step the other way round. For the request that was taken last: see `InflightSplit`. */
  untake(head: number): void {
    const { bytes, halves } = this.#views;
    const first = this.#entries[head];
    const last = this.#last[first];
    halves[(entryAt(last) + NEXT) / 2] = this.#next[last] = this.#free;
    this.#free = first;
    halves[FREE_HEAD] = first;
    Atomics.store(halves, OLD_FREE_HEAD, first);
    Atomics.store(bytes, entryAt(first), 0);
  }

  /** Request `head` is about to be returned. */
  return(head: number): void {
    if (this.#retaken.size > 0) this.#retaken.delete(head);
    this.#batch[this.#batchCount++] = this.#entries[head];
  }

  /**
   * The requests that were returned are about to be shown to the driver.
   *
   * @param used the next descriptor to be returned after that
   */
  prepare(used: number): void {
    const { bytes, halves } = this.#views;
    for (let i = 0; i < this.#batchCount; i++) {
      const first = this.#batch[i];
      const last = this.#last[first];
      halves[(entryAt(last) + NEXT) / 2] = this.#next[last] = this.#free;
      this.#free = first;
    }
    this.#prepared = used;
    halves[FREE_HEAD] = this.#free;
    bytes[USED_WRAP] = used >>> 15;
    Atomics.store(halves, USED_IDX, used & ~WRAP);
  }

  /** They were shown. */
  commit(): void {
    for (let i = 0; i < this.#batchCount; i++) {
      Atomics.store(this.#views.bytes, entryAt(this.#batch[i]), 0);
    }
    this.#batchCount = 0;
    this.#conclude(this.#free, this.#prepared);
  }
}
