/**
 * The driver's side of the split ring (virtio 1.4, section 2.7).
 *
 * @module
 */

import {
  DESCRIPTOR_SIZE,
  DescriptorFlag,
  needEvent,
  NO_INTERRUPT,
  NO_NOTIFY,
  splitRingSizes,
} from "../virtqueue/split_layout.ts";
import type { Piece, SharedMemory } from "./shared_memory.ts";

const { NEXT, WRITE, INDIRECT } = DescriptorFlag;

/** A range of guest memory for one descriptor. */
export interface Buffer {
  /** Guest physical address. */
  readonly guestAddress: number;
  /** Bytes. */
  readonly length: number;
}

/** A request that the device has returned. */
export interface Used {
  /** What {@link DriverRing.add} returned. */
  readonly head: number;
  /** Bytes that the device says it wrote. */
  readonly written: number;
}

/** How a driver's ring is laid out and negotiated. */
export interface DriverRingOptions {
  /** Entries, a power of two up to 32768. */
  readonly size: number;
  /** Whether EVENT_IDX was negotiated. */
  readonly eventIdx: boolean;
  /** Whether each request goes into a table of its own, of this many descriptors at most; 0 for direct ones. */
  readonly tableSize?: number;
}

/** A back-end that breaks the ring's rules. */
export class DriverRingError extends Error {
  /** The error's class name. */
  override readonly name = "DriverRingError";
}

/** A ring in shared memory, as a driver uses it. It neither kicks nor waits; it says when to. */
export class DriverRing {
  /** Entries. */
  readonly size: number;
  /** Where the descriptor table is. */
  readonly descriptor: Piece;
  /** Where the available ring is. */
  readonly available: Piece;
  /** Where the used ring is. */
  readonly used: Piece;
  readonly #eventIdx: boolean;
  readonly #descriptors: DataView;
  readonly #available: Uint16Array;
  readonly #usedIndex: Uint16Array;
  readonly #usedRing: Uint32Array;
  /** Next free descriptor after each free one; -1 at the end. */
  readonly #free: Int32Array;
  /** Descriptors of each request in flight, by head; 0 for none. */
  readonly #lengths: Uint32Array;
  readonly #tables: readonly { piece: Piece; view: DataView }[];
  #firstFree = 0;
  #freeCount: number;
  #added = 0;
  #published = 0;
  #seen = 0;

  /** Lays a ring out in shared memory. */
  constructor(memory: SharedMemory, { size, eventIdx, tableSize = 0 }: DriverRingOptions) {
    const bytes = splitRingSizes(size, true);
    this.size = size;
    this.#eventIdx = eventIdx;
    this.descriptor = memory.allocate(bytes.descriptor, 16);
    this.available = memory.allocate(bytes.available, 4);
    this.used = memory.allocate(bytes.used, 4);
    const view = ({ bytes }: Piece) => [bytes.buffer, bytes.byteOffset] as const;
    this.#descriptors = new DataView(...view(this.descriptor), bytes.descriptor);
    this.#available = new Uint16Array(...view(this.available), bytes.available / 2);
    this.#usedIndex = new Uint16Array(...view(this.used), bytes.used / 2);
    this.#usedRing = new Uint32Array(this.used.bytes.buffer, this.used.bytes.byteOffset + 4, 2 * size);
    this.#free = Int32Array.from({ length: size }, (_, i) => i + 1 < size ? i + 1 : -1);
    this.#lengths = new Uint32Array(size);
    this.#freeCount = size;
    this.#tables = Array.from({ length: tableSize === 0 ? 0 : size }, () => {
      const piece = memory.allocate(tableSize * DESCRIPTOR_SIZE, 16);
      return { piece, view: new DataView(...view(piece), tableSize * DESCRIPTOR_SIZE) };
    });
  }

  /** Descriptors that are free. */
  get free(): number {
    return this.#freeCount;
  }

  /** Position to give to SET_VRING_BASE for a ring that goes on. */
  get base(): number {
    return this.#seen;
  }

  /**
   * Adds a request; the device sees it after {@link publish}.
   *
   * @returns its head, or -1 when too few descriptors are free
   */
  add(readable: readonly Buffer[], writable: readonly Buffer[]): number {
    const count = readable.length + writable.length;
    if (count === 0) throw new RangeError("a request needs at least one descriptor");
    const head = this.#firstFree;
    if (this.#tables.length > 0) {
      if (this.#freeCount === 0) return -1;
      const { piece, view } = this.#tables[head];
      if (count * DESCRIPTOR_SIZE > view.byteLength) {
        throw new RangeError(`${count} descriptors exceed the table`);
      }
      this.#write(view, 0, readable, writable, (i) => i + 1);
      this.#firstFree = this.#free[head];
      this.#set(this.#descriptors, head, piece.guestAddress, count * DESCRIPTOR_SIZE, INDIRECT, 0);
      this.#lengths[head] = 1;
      this.#freeCount--;
    } else {
      if (count > this.#freeCount) return -1;
      this.#firstFree = this.#write(this.#descriptors, head, readable, writable, (i) => this.#free[i]);
      this.#lengths[head] = count;
      this.#freeCount -= count;
    }
    this.#available[2 + (this.#added & (this.size - 1))] = head;
    this.#added = (this.#added + 1) & 0xffff;
    return head;
  }

  #write(
    view: DataView,
    start: number,
    readable: readonly Buffer[],
    writable: readonly Buffer[],
    next: (index: number) => number,
  ): number {
    let at = start;
    let left = readable.length + writable.length;
    for (const [buffers, flag] of [[readable, 0], [writable, WRITE]] as const) {
      for (const { guestAddress, length } of buffers) {
        const following = next(at);
        left--;
        this.#set(view, at, guestAddress, length, flag | (left > 0 ? NEXT : 0), left > 0 ? following : 0);
        at = following;
      }
    }
    return at;
  }

  #set(view: DataView, index: number, address: number, length: number, flags: number, next: number): void {
    const at = index * DESCRIPTOR_SIZE;
    view.setUint32(at, address % 2 ** 32, true);
    view.setUint32(at + 4, Math.floor(address / 2 ** 32), true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + 12, flags, true);
    view.setUint16(at + 14, next, true);
  }

  /** Shows the device what was added. Returns whether it wants a kick. */
  publish(): boolean {
    const before = this.#published;
    const after = this.#added;
    if (after === before) return false;
    Atomics.store(this.#available, 1, after);
    this.#published = after;
    if (this.#eventIdx) return needEvent(Atomics.load(this.#usedIndex, 2 + 4 * this.size), after, before);
    return (Atomics.load(this.#usedIndex, 0) & NO_NOTIFY) === 0;
  }

  /**
   * Takes the next request that the device has returned.
   *
   * @returns the request, or `null` when there is none
   * @throws {DriverRingError} when the device returns what it does not have
   */
  take(): Used | null {
    if (Atomics.load(this.#usedIndex, 1) === this.#seen) return null;
    const slot = (this.#seen & (this.size - 1)) * 2;
    const head = this.#usedRing[slot];
    const written = this.#usedRing[slot + 1];
    if (head >= this.size || this.#lengths[head] === 0) {
      throw new DriverRingError(`used element ${this.#seen} returns head ${head}, which is not in flight`);
    }
    this.#seen = (this.#seen + 1) & 0xffff;
    const count = this.#lengths[head];
    this.#lengths[head] = 0;
    // The descriptors of a chain are still linked, so giving the chain back takes one link.
    let last = head;
    for (let i = 1; i < count; i++) last = this.#free[last];
    this.#free[last] = this.#firstFree;
    this.#firstFree = head;
    this.#freeCount += count;
    return { head, written };
  }

  /** Asks the device not to interrupt. */
  suppress(): void {
    if (!this.#eventIdx) this.#available[0] = NO_INTERRUPT;
  }

  /** Asks the device to interrupt. Returns whether it has returned something before it could know. */
  arm(): boolean {
    if (this.#eventIdx) Atomics.store(this.#available, 2 + this.size, this.#seen);
    else Atomics.store(this.#available, 0, 0);
    return Atomics.load(this.#usedIndex, 1) !== this.#seen;
  }
}
