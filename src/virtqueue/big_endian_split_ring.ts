/**
 * The device's side of a split ring whose driver is legacy and runs on a big-endian machine.
 *
 * @module
 */

import { BigEndianSegments } from "../memory/big_endian.ts";
import type { Segments } from "../memory/segments.ts";
import type { Endianness } from "../protocol/struct.ts";
import { Chain } from "./chain.ts";
import { DESCRIPTOR_SIZE, DescriptorFlag, swap16, swap32 } from "./split_layout.ts";
import { SplitRing } from "./split_ring.ts";

const { NEXT } = DescriptorFlag;

/** An indirect table of big-endian descriptors, whose words read as those of a little-endian one. */
class BigEndianTable extends BigEndianSegments {
  override getUint32(position: number): number {
    switch (position % DESCRIPTOR_SIZE) {
      case 0: // The lower half of the address.
        return super.getUint32(position + 4);
      case 4: // The upper half.
        return super.getUint32(position - 4);
      case 8: // The length.
        return super.getUint32(position);
      default: // The flags, and the next descriptor in the upper half.
        return this.getUint16(position) + this.getUint16(position + 2) * 0x1_0000;
    }
  }
}

/** A request of a big-endian driver. */
class BigEndianChain extends Chain {
  override readonly readable: Segments = new BigEndianSegments();
  override readonly writable: Segments = new BigEndianSegments();

  override get endianness(): Endianness {
    return "big";
  }
}

/**
 * A split ring with all fields big-endian (virtio 1.4, 2.7.3: legacy rings have the byte order of the guest). The requests
 * in it are big-endian too: their numbers are read so, and {@link Chain.endianness} says it.
 *
 * Each request is copied and turned around first, so that the rest works as in any ring.
 */
export class BigEndianSplitRing extends SplitRing {
  /**
   * Takes the next request, or `null` when there is none.
   *
   * @throws {RingError} when the driver broke the ring
   */
  override pop(): Chain | null {
    // What is not available yet must not be copied: it would be taken for what it is later.
    if (!this.available()) return null;
    this.copyNext();
    return super.pop();
  }

  /** They are the other way round. */
  protected override get littleEndian(): boolean {
    return false;
  }

  /** 16 bits, turned around. */
  protected override half(value: number): number {
    return swap16(value);
  }

  /** A request that says that it is big-endian. */
  protected override makeChain(head: number): Chain {
    return new BigEndianChain(head);
  }

  /** A table whose words are turned around. */
  protected override makeTable(): Segments {
    return new BigEndianTable();
  }

  /** A copy, of which the part that is in use outlives a move of the ring. */
  protected override wordsOf(guest: Uint32Array, before: Uint32Array): Uint32Array {
    return before.length === guest.length ? before : new Uint32Array(guest.length);
  }

  /** The same for the available ring. */
  protected override headsOf(guest: Uint16Array, before: Uint16Array): Uint16Array {
    return before.length === guest.length ? before : new Uint16Array(guest.length);
  }

  /** A head, turned around. */
  protected override copyHead(guest: Uint16Array, heads: Uint16Array, at: number): void {
    heads[at] = swap16(guest[at]);
  }

  /** Descriptors, turned around. Ends where a loop has used up all there are: who reads the copy finds that out. */
  protected override copyChain(guest: Uint32Array, words: Uint32Array, head: number): void {
    for (let index = head, count = 0; index < this.size && count < this.size; count++) {
      const at = index * 4;
      words[at] = swap32(guest[at + 1]);
      words[at + 1] = swap32(guest[at]);
      words[at + 2] = swap32(guest[at + 2]);
      const last = guest[at + 3];
      const flags = swap16(last & 0xffff);
      const next = swap16(last >>> 16);
      words[at + 3] = flags | next << 16;
      if ((flags & NEXT) === 0) return;
      index = next;
    }
  }

  /** Elements of the used ring, turned around in place. */
  protected override turnElements(ring: Uint32Array, from: number, count: number): void {
    for (let i = 0; i < count; i++) {
      const slot = (from + i & this.size - 1) * 2;
      ring[slot] = swap32(ring[slot]);
      ring[slot + 1] = swap32(ring[slot + 1]);
    }
  }
}
