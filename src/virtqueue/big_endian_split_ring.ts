/**
 * The device's side of a split ring whose driver is legacy and runs on a big-endian machine.
 *
 * @module
 */

import { BigEndianSegments } from "../memory/big_endian.ts";
import type { Segments } from "../memory/segments.ts";
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

/**
 * A split ring with all fields big-endian (virtio 1.4, 2.7.3: legacy rings have the byte order of the guest). The requests
 * in it are big-endian too: their numbers are read so, and {@link Chain.endianness} says it.
 */
export class BigEndianSplitRing extends SplitRing {
  /** Descriptors of the request that is being taken, turned around. Made when the first comes. */
  #table: Uint32Array | undefined;

  /** 16 bits, turned around. */
  protected override half(value: number): number {
    return swap16(value);
  }

  /** 32 bits, turned around. */
  protected override word(value: number): number {
    return swap32(value);
  }

  /** A request that says that it is big-endian. */
  protected override makeChain(head: number): Chain {
    return new Chain(head, "big");
  }

  /** A table whose words are turned around. */
  protected override makeTable(): Segments {
    return new BigEndianTable();
  }

  /** Each descriptor is copied once, as ever. A loop ends when the ring's entries are used up: the caller finds it in the copy. */
  protected override descriptors(words: Uint32Array, head: number): Uint32Array {
    const table = this.#table ??= new Uint32Array(words.length);
    for (let index = head, count = 0; index < this.size && count < this.size; count++) {
      const at = index * 4;
      table[at] = swap32(words[at + 1]);
      table[at + 1] = swap32(words[at]);
      table[at + 2] = swap32(words[at + 2]);
      const last = words[at + 3];
      table[at + 3] = swap16(last & 0xffff) | swap16(last >>> 16) << 16;
      if ((table[at + 3] & NEXT) === 0) break;
      index = table[at + 3] >>> 16;
    }
    return table;
  }
}
