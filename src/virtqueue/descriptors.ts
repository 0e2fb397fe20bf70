/**
 * Descriptors, as far as both ring formats have them in common: ranges of guest memory, and tables of them.
 *
 * @module
 */

import type { AddressSpace } from "../memory/address_space.ts";
import { Segments } from "../memory/segments.ts";
import type { Chain } from "./chain.ts";
import { RingError, type RingPart } from "./ring.ts";
import { DESCRIPTOR_SIZE, DescriptorFlag } from "./split_layout.ts";

const { NEXT, WRITE, INDIRECT } = DescriptorFlag;

const TWO_32 = 0x1_0000_0000;

/** Descriptors that a table may have, whatever the ring's size. */
const LONGEST_TABLE = 1024;

/** Offset of a ring part's first byte in the buffer of its region. */
export function partOffset({ region, offset }: RingPart): number {
  return region.bufferOffset + offset;
}

// Apart from where they are thrown: what is short is compiled into the loops that use it.

function outside(head: number, index: number, low: number, high: number, length: number): RingError {
  const address = (low >>> 0) + (high >>> 0) * TWO_32;
  return new RingError(
    `descriptor ${index} of head ${head}: 0x${address.toString(16)}+${length} is not in guest memory`,
  );
}

function afterWritable(head: number, index: number): RingError {
  return new RingError(`descriptor ${index} of head ${head}: readable after writable`);
}

function tooLong(head: number): RingError {
  return new RingError(`chain of head ${head}: 2^32 bytes or more`);
}

/**
 * Checks the length of a request that was read.
 *
 * @throws {RingError} when 32 bits cannot count it
 */
export function checkLength(chain: Chain, head: number): void {
  if (chain.readable.byteLength + chain.writable.byteLength >= TWO_32) throw tooLong(head);
}

/**
 * Turns descriptors into requests. Each is read once; only what was read is checked and used.
 *
 * Addresses come as two words of 32 bits, signed: as a whole they would have to be allocated, wherever the compiler makes
 * a call of one of these functions.
 */
export class Descriptors {
  readonly #space: AddressSpace;
  readonly #indirect: boolean;
  readonly #longest: number;
  /** The indirect table that is being read. */
  readonly #table: Segments;

  /**
   * For a ring.
   *
   * @param space what the addresses mean
   * @param size entries of the ring
   * @param indirect whether INDIRECT_DESC was negotiated
   * @param table how words of an indirect table are read
   */
  constructor(space: AddressSpace, size: number, indirect: boolean, table: Segments = new Segments()) {
    this.#space = space;
    this.#table = table;
    this.#indirect = indirect;
    // A driver with a small ring may still use long tables.
    this.#longest = Math.max(size, LONGEST_TABLE);
  }

  /**
   * Adds what a descriptor names to a request.
   *
   * @param head first descriptor of the request
   * @param index place of this one, in the ring or in its table
   * @param low lower half of the address
   * @param high upper half of the address
   * @throws {RingError} when it breaks the rules
   */
  append(
    chain: Chain,
    head: number,
    index: number,
    low: number,
    high: number,
    length: number,
    flags: number,
  ): void {
    const writable = (flags & WRITE) !== 0;
    const segments = writable ? chain.writable : chain.readable;
    if (!writable && chain.writable.count > 0) throw afterWritable(head, index);
    if (length > 0 && !this.#space.appendWords(segments, low, high, length, writable)) {
      throw outside(head, index, low, high, length);
    }
  }

  /** Opens the table that a descriptor refers to. Returns how many descriptors it has. */
  #open(index: number, low: number, high: number, length: number, flags: number): number {
    if ((flags & NEXT) !== 0) throw new RingError(`descriptor ${index}: INDIRECT together with NEXT`);
    if (!this.#indirect) throw new RingError(`descriptor ${index}: INDIRECT was not negotiated`);
    if (length === 0 || length % DESCRIPTOR_SIZE !== 0) {
      throw new RingError(
        `indirect table of ${length} bytes: must be a multiple of ${DESCRIPTOR_SIZE}, more than 0`,
      );
    }
    this.#table.clear();
    if (!this.#space.appendWords(this.#table, low, high, length, false)) {
      const table = (low >>> 0) + (high >>> 0) * TWO_32;
      throw new RingError(
        `indirect table of descriptor ${index}: 0x${table.toString(16)}+${length} is not in guest memory`,
      );
    }
    return length / DESCRIPTOR_SIZE;
  }

  /**
   * Adds a table whose descriptors are linked, as in the split ring (virtio 1.4, 2.7.5.3).
   *
   * @param index the descriptor that refers to it, of which the rest is
   * @throws {RingError} when it breaks the rules
   */
  appendLinked(
    chain: Chain,
    head: number,
    index: number,
    low: number,
    high: number,
    length: number,
    flags: number,
  ): void {
    const entries = this.#open(index, low, high, length, flags);
    const most = Math.min(entries, this.#longest);
    const table = this.#table;
    let entry = 0;
    for (let count = 1;; count++) {
      if (count > most) {
        throw new RingError(
          `indirect table at descriptor ${index} has a loop or is too long: more than ${most} descriptors`,
        );
      }
      const at = entry * DESCRIPTOR_SIZE;
      const last = table.getUint32(at + 12);
      const entryFlags = last & 0xffff;
      if ((entryFlags & INDIRECT) !== 0) {
        throw new RingError(`indirect table at descriptor ${index}: nested table`);
      }
      this.append(
        chain,
        head,
        entry,
        table.getUint32(at) | 0,
        table.getUint32(at + 4) | 0,
        table.getUint32(at + 8),
        entryFlags,
      );
      if ((entryFlags & NEXT) === 0) return;
      entry = last >>> 16;
      if (entry >= entries) {
        throw new RingError(`next descriptor ${entry} in an indirect table of ${entries}`);
      }
    }
  }

  /**
   * Adds a table whose descriptors follow each other, as in the packed ring (virtio 1.4, 2.8.7): of their flags only WRITE
   * means anything.
   *
   * @param index the descriptor that refers to it, of which the rest is
   * @throws {RingError} when it breaks the rules
   */
  appendPacked(
    chain: Chain,
    head: number,
    index: number,
    low: number,
    high: number,
    length: number,
    flags: number,
  ): void {
    const entries = this.#open(index, low, high, length, flags);
    if (entries > this.#longest) {
      throw new RingError(
        `indirect table at descriptor ${index} is too long: ${entries} descriptors, at most ${this.#longest}`,
      );
    }
    const table = this.#table;
    for (let entry = 0; entry < entries; entry++) {
      const at = entry * DESCRIPTOR_SIZE;
      this.append(
        chain,
        head,
        entry,
        table.getUint32(at) | 0,
        table.getUint32(at + 4) | 0,
        table.getUint32(at + 8),
        table.getUint32(at + 12) >>> 16,
      );
    }
  }
}
