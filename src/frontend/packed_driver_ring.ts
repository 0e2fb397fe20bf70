/**
 * The driver's side of the packed ring (virtio 1.4, section 2.8).
 *
 * @module
 */

import {
  advancePosition,
  availableFlags,
  EventFlag,
  needPackedEvent,
  PACKED_OWNER,
  packedBase,
  packedPosition,
  packedRingSizes,
  usedFlags,
} from "../virtqueue/packed_layout.ts";
import { DESCRIPTOR_SIZE, DescriptorFlag } from "../virtqueue/split_layout.ts";
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

/** The driver's side of a packed ring. */
export class PackedDriverRing implements DriverRing {
  /** Entries. */
  readonly size: number;
  /** Where the descriptor ring is. */
  readonly descriptor: Piece;
  /** Where the driver event suppression structure is. */
  readonly available: Piece;
  /** Where the device event suppression structure is. */
  readonly used: Piece;
  readonly #eventIdx: boolean;
  readonly #order: RingOrder | undefined;
  readonly #descriptors: DataView;
  readonly #flags: Uint16Array;
  readonly #words: Uint32Array;
  readonly #driverEvent: Uint32Array;
  readonly #deviceEvent: Uint32Array;
  /** Buffer ids that nobody has, as a stack. */
  readonly #ids: Uint16Array;
  #idCount = 0;
  /** Descriptors of each request in flight, by id; 0 for none. */
  readonly #lengths: Uint32Array;
  readonly #tableSize: number;
  readonly #tables: readonly Table[];
  #freeCount = 0;
  /** Next descriptor to write. */
  #slot = 0;
  #wrap = true;
  /** First descriptor that the device has not been shown, and the flags that will show it; -1 for none. */
  #hidden = -1;
  #hiddenFlags = 0;
  #published = 0;
  /** Next descriptor that the device will return. */
  #seen = 0;
  #seenWrap = true;

  /** Lays a ring out in shared memory. */
  constructor(memory: SharedMemory, { size, eventIdx, tableSize = 0, inOrder = false }: DriverRingOptions) {
    const bytes = packedRingSizes(size);
    this.size = size;
    this.#eventIdx = eventIdx;
    this.#order = inOrder ? new RingOrder(size) : undefined;
    this.descriptor = memory.allocate(bytes.descriptor, 16);
    this.available = memory.allocate(bytes.available, 4);
    this.used = memory.allocate(bytes.used, 4);
    const view = ({ bytes }: Piece) => [bytes.buffer, bytes.byteOffset] as const;
    this.#descriptors = new DataView(...view(this.descriptor), bytes.descriptor);
    this.#flags = new Uint16Array(...view(this.descriptor), bytes.descriptor / 2);
    this.#words = new Uint32Array(...view(this.descriptor), bytes.descriptor / 4);
    this.#driverEvent = new Uint32Array(...view(this.available), 1);
    this.#deviceEvent = new Uint32Array(...view(this.used), 1);
    this.#ids = new Uint16Array(size);
    this.#lengths = new Uint32Array(size);
    this.#tableSize = tableSize;
    this.#tables = allocateTables(memory, tableSize === 0 ? 0 : size, tableSize);
    this.reset();
  }

  /** Starts anew, as if nothing had ever been added. No device may be working on the ring. */
  reset(): void {
    for (const { bytes } of [this.descriptor, this.available, this.used]) bytes.fill(0);
    for (let i = 0; i < this.size; i++) this.#ids[i] = this.size - 1 - i;
    this.#lengths.fill(0);
    this.#order?.reset();
    this.#idCount = this.#freeCount = this.size;
    this.#slot = this.#published = this.#seen = 0;
    this.#wrap = this.#seenWrap = true;
    this.#hidden = -1;
  }

  /** Descriptors that are free. */
  get free(): number {
    return this.#freeCount;
  }

  /** Position to give to SET_VRING_BASE: up to here everything that was returned has been taken. */
  get base(): number {
    const position = packedPosition(this.#seen, this.#seenWrap);
    return packedBase(position, position);
  }

  /**
   * Adds a request; the device sees it after {@link publish}.
   *
   * @returns its buffer id, or -1 when too few descriptors are free
   * @throws {RangeError} for a request without descriptors, or with too many for its table or the ring
   */
  add(readable: readonly Buffer[], writable: readonly Buffer[]): number {
    const count = readable.length + writable.length;
    const indirect = this.#tableSize > 0;
    checkRequest(count, indirect ? this.#tableSize : this.size);
    if ((indirect ? 1 : count) > this.#freeCount) return -1;
    // There are as many ids as descriptors, so one is free.
    const id = this.#ids[--this.#idCount];
    if (indirect) {
      const table = this.#tables[id];
      const length = count * DESCRIPTOR_SIZE;
      this.#fill(table.view, readable, writable);
      this.#put({ guestAddress: table.guestAddress, length }, id, INDIRECT);
      this.#lengths[id] = 1;
    } else {
      let left = count;
      for (const [buffers, flag] of [[readable, 0], [writable, WRITE]] as const) {
        // The id counts in the last descriptor only.
        for (const buffer of buffers) {
          if (--left > 0) this.#put(buffer, 0, flag | NEXT);
          else this.#put(buffer, id, flag);
        }
      }
      this.#lengths[id] = count;
    }
    this.#freeCount -= this.#lengths[id];
    this.#order?.add(id, roomOf(writable));
    return id;
  }

  /** Writes a table: nothing but WRITE means anything there. */
  #fill(view: DataView, readable: readonly Buffer[], writable: readonly Buffer[]): void {
    readable.forEach((buffer, i) => putDescriptor(view, i, buffer, 0, 0));
    writable.forEach((buffer, i) => putDescriptor(view, readable.length + i, buffer, 0, WRITE));
  }

  /** Writes the next descriptor of the ring; the first since {@link publish} without the flags that show it. */
  #put(buffer: Buffer, id: number, flags: number): void {
    const slot = this.#slot;
    const shown = flags | availableFlags(this.#wrap);
    if (this.#hidden < 0) {
      this.#hidden = slot;
      this.#hiddenFlags = shown;
      putDescriptor(this.#descriptors, slot, buffer, id, this.#flags[slot * 8 + 7]);
    } else {
      putDescriptor(this.#descriptors, slot, buffer, id, shown);
    }
    if (++this.#slot === this.size) {
      this.#slot = 0;
      this.#wrap = !this.#wrap;
    }
  }

  /** Shows the device what was added. Returns whether it wants a kick. */
  publish(): boolean {
    if (this.#hidden < 0) return false;
    Atomics.store(this.#flags, this.#hidden * 8 + 7, this.#hiddenFlags);
    this.#hidden = -1;
    const before = this.#published;
    this.#published = this.#slot;
    const after = packedPosition(this.#slot, this.#wrap);
    return needPackedEvent(Atomics.load(this.#deviceEvent, 0), this.#eventIdx, after, before, this.size);
  }

  /** The last word of the next descriptor to be returned: id and flags. */
  #look(): number {
    return Atomics.load(this.#words, this.#seen * 4 + 3);
  }

  #isUsed(word: number): boolean {
    return (word >>> 16 & PACKED_OWNER) === usedFlags(this.#seenWrap) && this.#freeCount < this.size;
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
    const word = this.#look();
    if (!this.#isUsed(word)) return null;
    const head = word & 0xffff;
    // Without WRITE the length has no meaning (virtio 1.4, 2.8.4).
    const written = (word >>> 16 & WRITE) !== 0 ? this.#words[this.#seen * 4 + 2] : 0;
    if (head >= this.size || this.#lengths[head] === 0) {
      throw new DriverRingError(
        `used descriptor ${this.#seen} returns buffer id ${head}, which is not in flight`,
      );
    }
    if (order === undefined) return this.#release({ head, written });
    order.returned(head, written);
    return this.#release(order.next());
  }

  #release(used: Used): Used {
    const count = this.#lengths[used.head];
    this.#lengths[used.head] = 0;
    this.#ids[this.#idCount++] = used.head;
    this.#freeCount += count;
    const position = advancePosition(packedPosition(this.#seen, this.#seenWrap), count, this.size);
    this.#seenWrap = position >= 0x8000;
    this.#seen = position & 0x7fff;
    return used;
  }

  /** Asks the device not to interrupt. */
  suppress(): void {
    this.#driverEvent[0] = EventFlag.DISABLE << 16;
  }

  /** Asks the device to interrupt. Returns whether it has returned something before it could know. */
  arm(): boolean {
    const event = this.#eventIdx
      ? EventFlag.DESC << 16 | packedPosition(this.#seen, this.#seenWrap)
      : EventFlag.ENABLE << 16;
    Atomics.store(this.#driverEvent, 0, event);
    return this.#isUsed(this.#look());
  }
}
