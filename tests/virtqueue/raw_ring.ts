import type { TestContext } from "node:test";
import { SharedMemory } from "../../src/frontend/shared_memory.ts";
import { GuestMemory } from "../../src/memory/guest_memory.ts";
import type { Endianness } from "../../src/protocol/struct.ts";
import { BigEndianSplitRing } from "../../src/virtqueue/big_endian_split_ring.ts";
import type { RingOptions } from "../../src/virtqueue/ring.ts";
import { SplitRing } from "../../src/virtqueue/split_ring.ts";
import { onEnd } from "../support/cleanup.ts";

/** A descriptor as a driver may write it, right or wrong. */
export interface RawDescriptor {
  readonly address?: number | bigint;
  readonly length?: number;
  readonly flags?: number;
  readonly next?: number;
}

export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;

// Where the parts lie, whatever the ring's size up to 16.
const DESCRIPTORS = 0;
const AVAILABLE = 0x400;
const USED = 0x800;
/** Where tables and buffers may lie. */
export const FREE = 0x1000;
/** The guest address of the first byte, and the bytes that the guest has. */
export const GUEST = 0x10_0000;
export const GUEST_SIZE = 0x10000;

/** A ring in memory, byte by byte as virtio 1.4 lays it out, without a driver's code. */
export class RawRing {
  readonly size: number;
  readonly memory = new GuestMemory();
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  readonly shared: SharedMemory;
  readonly #little: boolean;
  #added = 0;

  constructor(scope: Pick<TestContext, "after">, size = 8, endianness: Endianness = "little") {
    this.size = size;
    this.#little = endianness === "little";
    this.shared = new SharedMemory(GUEST_SIZE, GUEST);
    onEnd(scope, () => {
      this.memory.clear();
      this.shared.close();
    });
    this.bytes = this.shared.piece(0, GUEST_SIZE).bytes;
    this.view = new DataView(this.bytes.buffer);
    this.map([[0, GUEST_SIZE]]);
  }

  /** Maps these ranges of the guest's memory for the device, each as a region of its own. */
  map(ranges: readonly (readonly [start: number, end: number])[]): void {
    this.memory.replace(ranges.map(([start, end]) => ({
      guestAddress: GUEST + start,
      size: end - start,
      userAddress: start,
      mmapOffset: start,
      fd: this.shared.fd,
    })));
  }

  /** The device, from index `base` on. */
  device(options: Partial<RingOptions> = {}): SplitRing {
    this.#added = options.base ?? 0;
    const at = (offset: number) => {
      const region = this.memory.findUser(offset, 1);
      if (region === undefined) throw new RangeError(`no region at ${offset}`);
      return { region, offset: offset - region.userAddress };
    };
    const Format = this.#little ? SplitRing : BigEndianSplitRing;
    return new Format(
      this.memory,
      this.size,
      { descriptor: at(DESCRIPTORS), available: at(AVAILABLE), used: at(USED) },
      { eventIdx: false, indirect: true, base: 0, ...options },
    );
  }

  /** Writes a descriptor at a byte offset. The address is one of the guest's. */
  writeDescriptor(
    at: number,
    { address = GUEST + FREE, length = 16, flags = 0, next = 0 }: RawDescriptor,
  ): void {
    this.view.setBigUint64(at, BigInt(address), this.#little);
    this.view.setUint32(at + 8, length, this.#little);
    this.view.setUint16(at + 12, flags, this.#little);
    this.view.setUint16(at + 14, next, this.#little);
  }

  /** Writes a descriptor of the ring's table. */
  descriptor(index: number, descriptor: RawDescriptor = {}): this {
    this.writeDescriptor(DESCRIPTORS + 16 * index, descriptor);
    return this;
  }

  /** Writes a table at a byte offset, and descriptor `index` that refers to it. */
  table(
    index: number,
    offset: number,
    descriptors: readonly RawDescriptor[],
    referring: RawDescriptor = {},
  ): this {
    descriptors.forEach((each, i) => this.writeDescriptor(offset + 16 * i, each));
    return this.descriptor(index, {
      address: GUEST + offset,
      length: 16 * descriptors.length,
      flags: INDIRECT,
      ...referring,
    });
  }

  /** Makes heads available. */
  offer(...heads: readonly number[]): this {
    for (const head of heads) {
      this.view.setUint16(AVAILABLE + 4 + 2 * (this.#added % this.size), head, this.#little);
      this.#added = (this.#added + 1) & 0xffff;
    }
    this.availableIndex = this.#added;
    return this;
  }

  get availableFlags(): number {
    return this.view.getUint16(AVAILABLE, this.#little);
  }
  set availableFlags(value: number) {
    this.view.setUint16(AVAILABLE, value, this.#little);
  }
  get availableIndex(): number {
    return this.view.getUint16(AVAILABLE + 2, this.#little);
  }
  set availableIndex(value: number) {
    this.view.setUint16(AVAILABLE + 2, value, this.#little);
  }
  /** `used_event`: at which used index the driver wants to be told. */
  set usedEvent(value: number) {
    this.view.setUint16(AVAILABLE + 4 + 2 * this.size, value, this.#little);
  }
  get usedFlags(): number {
    return this.view.getUint16(USED, this.#little);
  }
  set usedFlags(value: number) {
    this.view.setUint16(USED, value, this.#little);
  }
  get usedIndex(): number {
    return this.view.getUint16(USED + 2, this.#little);
  }
  set usedIndex(value: number) {
    this.view.setUint16(USED + 2, value, this.#little);
  }
  /** `avail_event`: at which available index the device wants to be told. */
  get availableEvent(): number {
    return this.view.getUint16(USED + 4 + 8 * this.size, this.#little);
  }
  set availableEvent(value: number) {
    this.view.setUint16(USED + 4 + 8 * this.size, value, this.#little);
  }
  /** A used element: head and bytes written. */
  usedElement(slot: number): [head: number, written: number] {
    const at = USED + 4 + 8 * slot;
    return [this.view.getUint32(at, this.#little), this.view.getUint32(at + 4, this.#little)];
  }
}
