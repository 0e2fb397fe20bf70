import type { TestContext } from "node:test";
import { SharedMemory } from "../../src/frontend/shared_memory.ts";
import { GuestMemory } from "../../src/memory/guest_memory.ts";
import { PackedRing } from "../../src/virtqueue/packed_ring.ts";
import type { RingOptions } from "../../src/virtqueue/ring.ts";
import { onEnd } from "../support/cleanup.ts";
import { FREE, GUEST, GUEST_SIZE } from "./raw_ring.ts";

export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;
export const AVAIL = 0x80;
export const USED = 0x8000;

/** Positions: slot 0 with both wrap counters 1. */
export const START = 0x8000_8000;

/** A descriptor as a driver may write it, right or wrong. */
export interface RawPacked {
  readonly address?: number | bigint;
  readonly length?: number;
  readonly id?: number;
  readonly flags?: number;
}

// Where the parts lie, whatever the ring's size up to 64.
const DESCRIPTORS = 0;
const DRIVER_EVENT = 0x400;
const DEVICE_EVENT = 0x800;

/** A packed ring in memory, byte by byte as virtio 1.4 lays it out, without a driver's code. */
export class RawPackedRing {
  readonly size: number;
  readonly memory = new GuestMemory();
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  readonly #shared: SharedMemory;

  constructor(scope: Pick<TestContext, "after">, size = 8) {
    this.size = size;
    this.#shared = new SharedMemory(GUEST_SIZE, GUEST);
    onEnd(scope, () => {
      this.memory.clear();
      this.#shared.close();
    });
    this.bytes = this.#shared.piece(0, GUEST_SIZE).bytes;
    this.view = new DataView(this.bytes.buffer);
    this.memory.replace([{
      guestAddress: GUEST,
      size: GUEST_SIZE,
      userAddress: 0,
      mmapOffset: 0,
      fd: this.#shared.fd,
    }]);
  }

  /** The device, from the positions `base` on. */
  device(options: Partial<RingOptions> = {}): PackedRing {
    const [region] = this.memory.regions;
    return new PackedRing(this.memory, this.size, {
      descriptor: { region, offset: DESCRIPTORS },
      available: { region, offset: DRIVER_EVENT },
      used: { region, offset: DEVICE_EVENT },
    }, { eventIdx: false, indirect: true, base: START, ...options });
  }

  /** Writes a descriptor at a byte offset. The address is one of the guest's. */
  writeDescriptor(at: number, { address = GUEST + FREE, length = 16, id = 0, flags = 0 }: RawPacked): void {
    this.view.setBigUint64(at, BigInt(address), true);
    this.view.setUint32(at + 8, length, true);
    this.view.setUint16(at + 12, id, true);
    this.view.setUint16(at + 14, flags, true);
  }

  /** Writes a descriptor of the ring, available in the first lap unless `lap` says otherwise. */
  offer(slot: number, descriptor: RawPacked = {}, lap = 1): this {
    const owner = lap % 2 === 1 ? AVAIL : USED;
    this.writeDescriptor(DESCRIPTORS + 16 * slot, {
      ...descriptor,
      flags: (descriptor.flags ?? 0) | owner,
    });
    return this;
  }

  /** Writes a table at a byte offset, and an available descriptor that refers to it. */
  offerTable(slot: number, table: readonly RawPacked[], referring: RawPacked = {}, lap = 1): this {
    table.forEach((each, i) => this.writeDescriptor(FREE + 16 * i, each));
    const length = 16 * table.length;
    return this.offer(slot, { address: GUEST + FREE, length, flags: INDIRECT, ...referring }, lap);
  }

  /** A descriptor of the ring: id, length and flags. */
  descriptor(slot: number): { id: number; length: number; flags: number } {
    const at = DESCRIPTORS + 16 * slot;
    return {
      id: this.view.getUint16(at + 12, true),
      length: this.view.getUint32(at + 8, true),
      flags: this.view.getUint16(at + 14, true),
    };
  }

  /** Sets what the driver wants to be told: flags, and a slot with a wrap counter. */
  wish(flags: number, slot = 0, wrap = 1): this {
    this.view.setUint16(DRIVER_EVENT, slot | wrap << 15, true);
    this.view.setUint16(DRIVER_EVENT + 2, flags, true);
    return this;
  }

  /** What the device wants to be told: flags, slot and wrap counter. */
  get deviceWish(): { flags: number; slot: number; wrap: number } {
    const word = this.view.getUint16(DEVICE_EVENT, true);
    return {
      flags: this.view.getUint16(DEVICE_EVENT + 2, true),
      slot: word & 0x7fff,
      wrap: word >>> 15,
    };
  }
}
