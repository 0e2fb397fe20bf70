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
  swap16,
  swap32,
} from "../virtqueue/split_layout.ts";
import {
  type Buffer,
  type DriverRing,
  DriverRingError,
  type DriverRingOptions,
  type Used,
} from "./driver_ring.ts";
import { RingOrder } from "./ring_order.ts";
import { allocateTables, checkRequest, putDescriptor, roomOf, type Table } from "./ring_tables.ts";
import type { Piece, SharedMemory } from "./shared_memory.ts";

const { NEXT, WRITE, INDIRECT } = DescriptorFlag;

/** The driver's side of a split ring. */
export class SplitDriverRing implements DriverRing {
  /** Entries. */
  readonly size: number;
  /** Where the descriptor table is. */
  readonly descriptor: Piece;
  /** Where the available ring is. */
  readonly available: Piece;
  /** Where the used ring is. */
  readonly used: Piece;
  readonly #eventIdx: boolean;
  readonly #little: boolean;
  readonly #order: RingOrder | undefined;
  readonly #descriptors: DataView;
  readonly #available: Uint16Array;
  readonly #usedIndex: Uint16Array;
  readonly #usedRing: Uint32Array;
  /** Next free descriptor after each free one. */
  readonly #free: Uint16Array;
  /** Descriptors of each request in flight, by head; 0 for none. */
  readonly #lengths: Uint32Array;
  readonly #tableSize: number;
  readonly #tables: readonly Table[];
  #firstFree = 0;
  #lastFree = 0;
  #freeCount = 0;
  #added = 0;
  #published = 0;
  #seen = 0;

  /** Lays a ring out in shared memory. */
  constructor(memory: SharedMemory, options: DriverRingOptions) {
    const { size, eventIdx, tableSize = 0, inOrder = false, endianness = "little" } = options;
    const bytes = splitRingSizes(size, true);
    this.size = size;
    this.#eventIdx = eventIdx;
    this.#little = endianness === "little";
    this.#order = inOrder ? new RingOrder(size) : undefined;
    this.descriptor = memory.allocate(bytes.descriptor, 16);
    this.available = memory.allocate(bytes.available, 4);
    this.used = memory.allocate(bytes.used, 4);
    const view = ({ bytes }: Piece) => [bytes.buffer, bytes.byteOffset] as const;
    this.#descriptors = new DataView(...view(this.descriptor), bytes.descriptor);
    this.#available = new Uint16Array(...view(this.available), bytes.available / 2);
    this.#usedIndex = new Uint16Array(...view(this.used), bytes.used / 2);
    this.#usedRing = new Uint32Array(this.used.bytes.buffer, this.used.bytes.byteOffset + 4, 2 * size);
    this.#free = new Uint16Array(size);
    this.#lengths = new Uint32Array(size);
    this.#tableSize = tableSize;
    this.#tables = allocateTables(memory, tableSize === 0 ? 0 : size, tableSize);
    this.reset();
  }

  /** Starts anew, as if nothing had ever been added. No device may be working on the ring. */
  reset(): void {
    for (const { bytes } of [this.descriptor, this.available, this.used]) bytes.fill(0);
    for (let i = 0; i < this.size; i++) this.#free[i] = (i + 1) % this.size;
    this.#lengths.fill(0);
    this.#order?.reset();
    this.#firstFree = 0;
    this.#lastFree = this.size - 1;
    this.#freeCount = this.size;
    this.#added = this.#published = this.#seen = 0;
  }

  /** 16 bits of the ring, as read or as to be written. */
  #half(value: number): number {
    return this.#little ? value : swap16(value);
  }

  /** 32 bits of the ring, as read. */
  #word(value: number): number {
    return this.#little ? value : swap32(value);
  }

  /** Descriptors that are free. */
  get free(): number {
    return this.#freeCount;
  }

  /** Position to give to SET_VRING_BASE: up to here everything that was returned has been taken. */
  get base(): number {
    return this.#seen;
  }

  /**
   * Adds a request; the device sees it after {@link publish}.
   *
   * @returns its head, or -1 when too few descriptors are free
   * @throws {RangeError} for a request without descriptors, or with too many for its table or the ring
   */
  add(readable: readonly Buffer[], writable: readonly Buffer[]): number {
    const count = readable.length + writable.length;
    const indirect = this.#tableSize > 0;
    checkRequest(count, indirect ? this.#tableSize : this.size);
    if ((indirect ? 1 : count) > this.#freeCount) return -1;
    const head = this.#firstFree;
    if (indirect) {
      const table = this.#tables[head];
      const length = count * DESCRIPTOR_SIZE;
      this.#write(table.view, 0, readable, writable, (i) => i + 1);
      this.#firstFree = this.#free[head];
      const buffer = { guestAddress: table.guestAddress, length };
      putDescriptor(this.#descriptors, head, buffer, INDIRECT, 0, this.#little);
      this.#lengths[head] = 1;
    } else {
      this.#firstFree = this.#write(this.#descriptors, head, readable, writable, (i) => this.#free[i]);
      this.#lengths[head] = count;
    }
    this.#freeCount -= this.#lengths[head];
    this.#order?.add(head, roomOf(writable));
    this.#available[2 + (this.#added & (this.size - 1))] = this.#half(head);
    this.#added = (this.#added + 1) & 0xffff;
    return head;
  }

  /** Writes a chain. Returns the descriptor that would come next. */
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
      for (const buffer of buffers) {
        const following = next(at);
        const more = --left > 0;
        putDescriptor(view, at, buffer, more ? flag | NEXT : flag, more ? following : 0, this.#little);
        at = following;
      }
    }
    return at;
  }

  /** Shows the device what was added. Returns whether it wants a kick. */
  publish(): boolean {
    const before = this.#published;
    const after = this.#added;
    if (after === before) return false;
    Atomics.store(this.#available, 1, this.#half(after));
    this.#published = after;
    if (this.#eventIdx) {
      return needEvent(this.#half(Atomics.load(this.#usedIndex, 2 + 4 * this.size)), after, before);
    }
    return (this.#half(Atomics.load(this.#usedIndex, 0)) & NO_NOTIFY) === 0;
  }

  /**
   * Takes the next request that the device has returned.
   *
   * @returns the request, or `null` when there is none
   * @throws {DriverRingError} when the device returns what it does not have
   */
  take(): Used | null {
    const order = this.#order;
    if (order !== undefined && order.batch > 0) return this.#release(order.next());
    const count = (this.#half(Atomics.load(this.#usedIndex, 1)) - this.#seen) & 0xffff;
    if (count === 0) return null;
    const slot = (this.#seen & (this.size - 1)) * 2;
    const head = this.#word(this.#usedRing[slot]);
    const written = this.#word(this.#usedRing[slot + 1]);
    if (head >= this.size || this.#lengths[head] === 0) {
      throw new DriverRingError(`used element ${this.#seen} returns head ${head}, which is not in flight`);
    }
    if (order === undefined) return this.#release({ head, written });
    const batch = order.returned(head, written);
    if (batch > count) {
      throw new DriverRingError(
        `used element ${this.#seen} returns ${batch} requests, but the used index is only ${count} ahead`,
      );
    }
    return this.#release(order.next());
  }

  /** Gives a request's descriptors back. */
  #release(used: Used): Used {
    const { head } = used;
    const count = this.#lengths[head];
    this.#seen = (this.#seen + 1) & 0xffff;
    this.#lengths[head] = 0;
    // The descriptors of a chain are still linked, so this takes one link. They go to the end of the list: IN_ORDER wants
    // descriptors to be used in the order of the table, over and over (virtio 1.4, 2.7.5).
    if (this.#freeCount === 0) this.#firstFree = head;
    else this.#free[this.#lastFree] = head;
    let last = head;
    for (let i = 1; i < count; i++) last = this.#free[last];
    this.#lastFree = last;
    this.#freeCount += count;
    return used;
  }

  /** Asks the device not to interrupt. */
  suppress(): void {
    if (!this.#eventIdx) this.#available[0] = this.#half(NO_INTERRUPT);
  }

  /** Asks the device to interrupt. Returns whether it has returned something before it could know. */
  arm(): boolean {
    if (this.#eventIdx) Atomics.store(this.#available, 2 + this.size, this.#half(this.#seen));
    else Atomics.store(this.#available, 0, 0);
    return this.#half(Atomics.load(this.#usedIndex, 1)) !== this.#seen;
  }
}
