/**
 * Where a ring lies in guest memory.
 *
 * @module
 */

import { Access } from "../memory/iotlb.ts";
import { has, type RingFeature, ringFeatures } from "../protocol/features.ts";
import type { VringAddress } from "../protocol/payloads.ts";
import { packedRingSizes } from "../virtqueue/packed_layout.ts";
import { RingError, type RingPlace } from "../virtqueue/ring.ts";
import { splitRingSizes } from "../virtqueue/split_layout.ts";
import type { VringContext, VringPart } from "./vring_context.ts";

/** The three parts of a ring. */
interface VringPlace extends RingPlace {
  readonly descriptor: VringPart;
  readonly available: VringPart;
  readonly used: VringPart;
}

/** Finds a ring by its addresses, and owns what is mapped for it. */
export class RingSite {
  readonly #index: number;
  readonly #context: VringContext;
  #place: VringPlace | undefined;

  /** Of a ring that was not found yet. */
  constructor(index: number, context: VringContext) {
    this.#index = index;
    this.#context = context;
  }

  #accepted(feature: RingFeature): boolean {
    return has(this.#context.features(), ringFeatures[feature]);
  }

  /** Bytes of each part of a ring of so many entries. */
  #bytes(size: number): { descriptor: number; available: number; used: number } {
    return this.#accepted("RING_PACKED")
      ? packedRingSizes(size)
      : splitRingSizes(size, this.#accepted("EVENT_IDX"));
  }

  /**
   * Finds the ring, in place of where it was before.
   *
   * @throws {RingError} when it is not in guest memory, or not aligned
   * @throws {IotlbMiss} when the IOTLB does not say
   */
  find(address: VringAddress, size: number): RingPlace {
    const place = this.#resolve(address, size);
    this.leave();
    return this.#place = place;
  }

  /** Throws what {@link find} would throw. */
  check(address: VringAddress, size: number): void {
    release(this.#resolve(address, size));
  }

  /** Unmaps what was mapped for the ring. */
  leave(): void {
    if (this.#place !== undefined) release(this.#place);
    this.#place = undefined;
  }

  /** Whether a part of the ring lies in a range of addresses. */
  touches(address: VringAddress, size: number, from: number, length: number): boolean {
    const bytes = this.#bytes(size);
    return (["descriptor", "available", "used"] as const).some((part) => {
      const at = Number(address[part]);
      return at < from + length && from < at + bytes[part];
    });
  }

  #part(name: string, address: bigint, length: number, access: number): VringPart {
    const part = this.#context.locate(address, length, access);
    if (part === undefined && !this.#context.hasMemory()) {
      throw new RingError(
        `ring ${this.#index}: the front-end has shared no guest memory (in QEMU, it needs share=on)`,
      );
    }
    if (part === undefined) {
      const range = `0x${address.toString(16)}+${length}`;
      throw new RingError(
        `ring ${this.#index}: ${name} ${range} is not within one region of the memory table`,
      );
    }
    return part;
  }

  #resolve(address: VringAddress, size: number): VringPlace {
    const packed = this.#accepted("RING_PACKED");
    const bytes = this.#bytes(size);
    const { READ, WRITE } = Access;
    const found: VringPart[] = [];
    try {
      for (
        const [name, at, length, alignment, access] of [
          ["descriptor table", address.descriptor, bytes.descriptor, 4, packed ? READ | WRITE : READ],
          ["available ring", address.available, bytes.available, packed ? 4 : 2, READ],
          ["used ring", address.used, bytes.used, 4, WRITE],
        ] as const
      ) {
        const part = this.#part(name, at, length, access);
        found.push(part);
        if ((part.region.bufferOffset + part.offset) % alignment !== 0) {
          throw new RingError(`ring ${this.#index}: ${name} is not aligned in its file`);
        }
      }
    } catch (error) {
      for (const part of found) part.collage?.unmap();
      throw error;
    }
    const [descriptor, available, used] = found;
    return { descriptor, available, used };
  }
}

function release({ descriptor, available, used }: VringPlace): void {
  for (const part of [descriptor, available, used]) part.collage?.unmap();
}
