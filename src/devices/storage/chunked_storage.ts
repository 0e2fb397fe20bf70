/**
 * A disk over a store of chunks, with a cache.
 *
 * @module
 */

import type { Span } from "../../memory/span.ts";
import type { ChunkStore } from "./chunk_store.ts";
import { Slot } from "./slot.ts";
import { SECTOR, type Storage } from "./storage.ts";

const MIB = 2 ** 20;
/** Readers that are followed at once. */
const READERS = 8;
/** Chunks of one request that are worked on at once. */
const LANES = 64;
/** Chunks for which there must be room. */
const MIN_SLOTS = 4;

/** How a store of chunks is used. */
export interface ChunkedOptions {
  /** Memory for chunks, bytes, in which there is room for at least four; 64 MiB by default. */
  readonly cacheSize?: number;
  /** How many chunks are read before they are asked for, once somebody reads one after the other; none by default. */
  readonly readAhead?: number;
  /** Operations of the store that are under way at the most; 16 by default. */
  readonly concurrency?: number;
  /**
   * Whether a write is done when it is in memory. The store gets it when the guest flushes, or when there is no more room: a
   * process that is killed takes it along, as a disk's volatile cache does when the power goes. By default, a write is done
   * when the store has it.
   */
  readonly writeBack?: boolean;
}

function checked(store: ChunkStore, options: ChunkedOptions): Required<ChunkedOptions> {
  const { size, chunkSize } = store;
  const { cacheSize = 64 * MIB, readAhead = 0, concurrency = 16, writeBack = false } = options;
  for (const [name, bytes] of [["size", size], ["chunkSize", chunkSize]] as const) {
    if (Number.isSafeInteger(bytes) && bytes > 0 && bytes % SECTOR === 0) continue;
    throw new RangeError(`${name} must be a multiple of ${SECTOR} bytes, got ${bytes}`);
  }
  if (!(cacheSize >= MIN_SLOTS * chunkSize)) {
    throw new RangeError(
      `cacheSize must be ${MIN_SLOTS} chunks, ${MIN_SLOTS * chunkSize} bytes, at least, got ${cacheSize}`,
    );
  }
  if (!Number.isInteger(readAhead) || readAhead < 0) {
    throw new RangeError(`readAhead must be a number of chunks, got ${readAhead}`);
  }
  if (!Number.isInteger(concurrency) || concurrency < 1) {
    throw new RangeError(`concurrency must be 1 at least, got ${concurrency}`);
  }
  return { cacheSize, readAhead, concurrency, writeBack };
}

/** Waits for something, however it ends. */
async function over(pending: Promise<void>): Promise<void> {
  try {
    await pending;
  } catch {
    // Whoever has begun it is told.
  }
}

/** What is done to a chunk, or about to be. */
function underWay({ busy, loading, saving }: Slot): Promise<void> | undefined {
  return busy ?? loading ?? saving;
}

/** Waits for all, then throws what the first of those that failed has thrown. */
async function all(pending: readonly Promise<void>[]): Promise<void> {
  for (const end of await Promise.allSettled(pending)) if (end.status === "rejected") throw end.reason;
}

/**
 * A disk over a {@link ChunkStore}, with the chunks that were used last in memory. Requests for chunks that are there are done at
 * once; the others wait for the store, and hold up nobody else. Requests for one chunk get along: who reads what is being read
 * already waits for the same, writes to one chunk reach the store in order, and those that come while one is under way reach it
 * together.
 *
 * A chunk that cannot be read or written fails the requests for it. With `writeBack` it is kept, and what was flushed in vain is
 * tried again with the next flush.
 */
export class ChunkedStorage implements Storage {
  /** Whether nothing may be written: the store says it. */
  readonly readOnly: boolean;
  /** Bytes. */
  readonly size: number;
  /** Whether something goes with the process: what is in memory with `writeBack`, or the store itself. */
  readonly volatile: boolean;
  /** As {@link Storage.discard}, for whole chunks; absent when the store cannot erase. */
  readonly discard?: (position: number, length: number) => Promise<void>;
  /** As {@link Storage.writeZeroes}; absent when the store cannot erase. */
  readonly writeZeroes?: (position: number, length: number) => Promise<void>;
  readonly #store: ChunkStore;
  readonly #chunkSize: number;
  readonly #writeBack: boolean;
  /** Chunks by their index, and all room there is so far. */
  readonly #byIndex = new Map<number, Slot>();
  readonly #slots: Slot[] = [];
  readonly #maxSlots: number;
  /** Where the search for room goes on. */
  #hand = 0;
  /** Chunks that the store does not have as they are, the longest so first. */
  readonly #dirty = new Set<Slot>();
  /** Who waits for room. */
  readonly #waiting: (() => void)[] = [];
  /** Operations of the store that may still begin, and who waits for that. */
  #turns: number;
  readonly #queue: (() => void)[] = [];
  readonly #readAhead: number;
  /** The chunk with which each reader would go on, and whose place is taken next. */
  readonly #readers = new Float64Array(READERS).fill(-1);
  #reader = 0;
  #closed = false;

  /**
   * A disk over a store, which it owns from here on.
   *
   * @throws {RangeError} for sizes that cannot be
   */
  constructor(store: ChunkStore, options: ChunkedOptions = {}) {
    const { cacheSize, readAhead, concurrency, writeBack } = checked(store, options);
    this.#store = store;
    this.size = store.size;
    this.#chunkSize = store.chunkSize;
    this.readOnly = store.readOnly === true || store.write === undefined;
    this.volatile = writeBack || store.volatile === true;
    this.#writeBack = writeBack;
    this.#maxSlots = Math.floor(cacheSize / store.chunkSize);
    this.#readAhead = Math.min(readAhead, this.#maxSlots >> 1);
    this.#turns = concurrency;
    if (store.erase !== undefined) {
      const lanes = concurrency;
      this.discard = (position, length) => this.#eraseRange(position, length, lanes, false);
      this.writeZeroes = (position, length) => this.#eraseRange(position, length, lanes, true);
    }
  }

  /** Whether the store is. */
  get settled(): boolean {
    return this.#store.settled ?? true;
  }

  /** Reads: at once when all of it is in memory. */
  read(data: Span, position: number): void | Promise<void> {
    const size = this.#chunkSize;
    const end = position + data.byteLength;
    const first = Math.floor(position / size);
    const last = Math.floor((end - 1) / size);
    let ready = true;
    for (let index = first; index <= last && ready; index++) {
      ready = this.#byIndex.get(index)?.valid === true;
    }
    if (!ready) {
      const parts = this.#parts(
        position,
        end,
        (index, from, to, at) => this.#read(index, from, to, data, at),
      );
      this.#follow(first, last);
      return parts;
    }
    for (let index = first, at = position; index <= last; index++) {
      const slot = this.#byIndex.get(index) as Slot;
      const from = at - index * size;
      const to = Math.min(size, end - index * size);
      slot.recent = true;
      data.copyFrom(slot.data.subarray(from, to), at - position);
      at += to - from;
    }
    // Now: it may take the room of what has just been read.
    this.#follow(first, last);
  }

  /** Writes: at once with `writeBack`, when the chunk is in memory. */
  write(data: Span, position: number): void | Promise<void> {
    const size = this.#chunkSize;
    const end = position + data.byteLength;
    const index = Math.floor(position / size);
    if (data.byteLength === 0) return;
    if (this.#writeBack && end <= (index + 1) * size) {
      const slot = this.#byIndex.get(index);
      if (slot?.valid === true && slot.busy === undefined) {
        const from = position - index * size;
        slot.recent = true;
        data.copyTo(slot.data.subarray(from, end - index * size));
        this.#changed(slot, from, end - index * size);
        return;
      }
    }
    return this.#parts(
      position,
      end,
      (index, from, to, at) => this.#change(index, from, to, (bytes) => void data.copyTo(bytes, at)),
    );
  }

  /** Has the store get, and make durable, all that was written before. Wait for it before {@link close}. */
  async flush(): Promise<void> {
    if (this.#writeBack) await all(Array.from(this.#dirty, (slot) => this.#settle(slot)));
    await this.#store.flush?.();
  }

  /** Closes the store, and forgets what it does not have: {@link flush} first. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const wake of this.#waiting.splice(0)) wake();
    this.#store.close();
  }

  /** Does something to each chunk of a range. */
  async #parts(
    position: number,
    end: number,
    act: (index: number, from: number, to: number, at: number) => Promise<void>,
  ): Promise<void> {
    const size = this.#chunkSize;
    const pending: Promise<void>[] = [];
    let next = position;
    const lane = async (): Promise<void> => {
      while (next < end) {
        const at = next;
        const index = Math.floor(at / size);
        const from = at - index * size;
        const to = Math.min(size, end - index * size);
        next += to - from;
        await act(index, from, to, at - position);
      }
    };
    // A long request of small chunks must not take all room at once.
    for (let i = 0; i < LANES && next < end; i++) pending.push(lane());
    // All of them: who is told of an error takes the memory away that the others still use.
    await all(pending);
  }

  async #read(index: number, from: number, to: number, data: Span, at: number): Promise<void> {
    const taken = this.#take(index);
    const slot = taken instanceof Slot ? taken : await taken;
    try {
      while (!slot.valid) await (slot.busy === undefined ? this.#load(slot) : over(slot.busy));
      data.copyFrom(slot.data.subarray(from, to), at);
    } finally {
      this.#leave(slot);
    }
  }

  async #change(index: number, from: number, to: number, put: (bytes: Uint8Array) => void): Promise<void> {
    const taken = this.#take(index);
    const slot = taken instanceof Slot ? taken : await taken;
    try {
      const whole = from === 0 && to === slot.data.length;
      while (slot.busy !== undefined || slot.loading !== undefined || !(slot.valid || whole)) {
        if (slot.busy !== undefined) await over(slot.busy);
        else if (whole && slot.loading !== undefined) await over(slot.loading);
        else await this.#load(slot);
      }
      put(slot.data.subarray(from, to));
      slot.valid = true;
      this.#changed(slot, from, to);
      if (!this.#writeBack) await this.#save(slot);
    } finally {
      this.#leave(slot);
    }
  }

  #changed(slot: Slot, from: number, to: number): void {
    slot.mark(from, to);
    this.#dirty.add(slot);
    if (this.#writeBack && this.#turns > 0 && this.#dirty.size > this.#maxSlots >> 1) this.#clean();
  }

  /** Makes the store have the chunk that it has not had for the longest time. */
  #clean(): void {
    for (const slot of this.#dirty) {
      if (slot.busy !== undefined || slot.saving !== undefined) continue;
      void over(this.#save(slot));
      return;
    }
  }

  #load(slot: Slot): Promise<void> {
    return slot.loading ??= this.#inTurn(async () => {
      try {
        await this.#store.read(slot.index, slot.data);
        slot.valid = true;
      } finally {
        slot.loading = undefined;
        this.#wake(slot);
      }
    });
  }

  /** Has the store get a chunk: the bytes as they are when its turn comes. Never while it is being erased. */
  #save(slot: Slot): Promise<void> {
    return slot.saving ??= this.#inTurn(async () => {
      slot.saving = undefined;
      await this.#occupy(slot, async () => {
        const { from, to, index, data } = slot;
        slot.to = 0;
        try {
          if (to > 0) await this.#store.write?.(index, data, from, to);
        } catch (error) {
          if (this.#writeBack) slot.mark(from, to);
          // What the store has now nobody knows; who waits to change the chunk reads it anew.
          else slot.valid = false;
          throw error;
        } finally {
          if (slot.to === 0) this.#dirty.delete(slot);
        }
      });
    });
  }

  /** Has the store get all that was written to a chunk so far. */
  async #settle(slot: Slot): Promise<void> {
    if (slot.busy !== undefined) await over(slot.busy);
    // It may be another chunk by now, then this one was saved.
    if (slot.to > 0) await this.#save(slot);
  }

  async #erase(index: number): Promise<void> {
    const taken = this.#take(index);
    const slot = taken instanceof Slot ? taken : await taken;
    try {
      for (let under = underWay(slot); under !== undefined; under = underWay(slot)) await over(under);
      slot.valid = false;
      slot.to = 0;
      this.#dirty.delete(slot);
      await this.#occupy(slot, () => this.#inTurn(async () => await this.#store.erase?.(index)));
    } finally {
      this.#leave(slot);
    }
  }

  /** Erases whole chunks, some at a time; zeroes what is left at both ends, if that matters. */
  async #eraseRange(position: number, length: number, lanes: number, exact: boolean): Promise<void> {
    const size = this.#chunkSize;
    const end = position + length;
    let next = Math.ceil(position / size);
    const behind = end === this.size ? Math.ceil(end / size) : Math.floor(end / size);
    const pending: Promise<void>[] = [];
    const lane = async (): Promise<void> => {
      while (next < behind) await this.#erase(next++);
    };
    const zero = (from: number, to: number): Promise<void> =>
      this.#parts(
        from,
        to,
        (index, from, to) => this.#change(index, from, to, (bytes) => void bytes.fill(0)),
      );
    if (exact && next > behind) pending.push(zero(position, end));
    else if (exact) {
      pending.push(zero(position, Math.min(next * size, end)));
      pending.push(zero(Math.min(behind * size, end), end));
    }
    for (let i = 0; i < lanes; i++) pending.push(lane());
    await all(pending);
  }

  /** Reads the next chunks, if somebody reads one after the other. */
  #follow(first: number, last: number): void {
    if (this.#readAhead === 0) return;
    const readers = this.#readers;
    const found = readers.findIndex((next) => next >= first && next <= last + 1);
    if (found < 0) {
      readers[this.#reader] = last + 1;
      this.#reader = (this.#reader + 1) % READERS;
      return;
    }
    // Still within the chunk that it has begun with.
    if (readers[found] === last + 1) return;
    readers[found] = last + 1;
    const chunks = Math.ceil(this.size / this.#chunkSize);
    for (let index = last + 1; index <= last + this.#readAhead && index < chunks; index++) {
      if (this.#byIndex.has(index)) continue;
      const slot = this.#room(index);
      if (slot === undefined) return;
      slot.recent = true;
      void over(this.#load(slot));
    }
  }

  /** The room of a chunk, which stays until {@link #leave}. At once if there is some: who asks first is served first. */
  #take(index: number): Slot | Promise<Slot> {
    if (this.#closed) throw new Error("the disk is closed");
    const slot = this.#byIndex.get(index) ?? this.#room(index);
    if (slot === undefined) return this.#takeLater(index);
    slot.users++;
    slot.recent = true;
    return slot;
  }

  async #takeLater(index: number): Promise<Slot> {
    await this.#makeRoom();
    return await this.#take(index);
  }

  #leave(slot: Slot): void {
    slot.users--;
    this.#wake(slot);
  }

  /** Waits until there may be room. */
  async #makeRoom(): Promise<void> {
    for (const slot of this.#dirty) {
      if (slot.users > 0 || slot.busy !== undefined || slot.saving !== undefined) continue;
      return await this.#save(slot);
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Takes room for a chunk, if there is some: that of one which was not used for some time. */
  #room(index: number): Slot | undefined {
    const slot = this.#slots.length < this.#maxSlots ? this.#newSlot() : this.#unused();
    if (slot === undefined) return undefined;
    if (this.#byIndex.get(slot.index) === slot) this.#byIndex.delete(slot.index);
    slot.assign(index, Math.min(this.#chunkSize, this.size - index * this.#chunkSize));
    this.#byIndex.set(index, slot);
    return slot;
  }

  #newSlot(): Slot {
    const slot = new Slot(this.#chunkSize);
    this.#slots.push(slot);
    return slot;
  }

  #unused(): Slot | undefined {
    // The second time round, what was used is not so recent any more.
    for (let looked = 0; looked < 2 * this.#slots.length; looked++) {
      const slot = this.#slots[this.#hand];
      this.#hand = (this.#hand + 1) % this.#slots.length;
      if (!slot.free) continue;
      if (!slot.recent) return slot;
      slot.recent = false;
    }
    return undefined;
  }

  /** Wakes one who waits for room, if there is some or can be: who takes it wakes the next by leaving it. */
  #wake(slot: Slot): void {
    if (slot.users === 0) this.#waiting.shift()?.();
  }

  /** Keeps a chunk from being changed while something is done. */
  async #occupy(slot: Slot, act: () => Promise<void>): Promise<void> {
    const acting = act();
    slot.busy = acting;
    try {
      await acting;
    } finally {
      slot.busy = undefined;
      this.#wake(slot);
    }
  }

  /** Does something when not too much else is under way. */
  async #inTurn(act: () => Promise<void>): Promise<void> {
    if (this.#turns > 0) {
      this.#turns--;
      // Who has waited for the same chunk goes first.
      await undefined;
    } else await new Promise<void>((resolve) => this.#queue.push(resolve));
    try {
      await act();
    } finally {
      const next = this.#queue.shift();
      if (next === undefined) this.#turns++;
      else next();
    }
  }
}
