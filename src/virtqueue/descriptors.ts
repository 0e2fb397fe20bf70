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

/** Sections of virtio 1.4 that say what descriptors are. */
export interface DescriptorSections {
  /** The fields of a descriptor. */
  readonly fields: string;
  /** What is readable comes before what is writable. */
  readonly order: string;
  /** What a driver must do in tables. */
  readonly indirect: string;
  /** Tables. */
  readonly table: string;
}

const splitSections: DescriptorSections = {
  fields: "2.7.5",
  order: "2.7.4.2",
  indirect: "2.7.5.3.1",
  table: "2.7.5.3",
};

/** The same for packed rings. */
export const packedSections: DescriptorSections = {
  fields: "2.8.13",
  order: "2.8.17",
  indirect: "2.8.19",
  table: "2.8.7",
};

// Apart from where they are thrown: what is short is compiled into the loops that use it.

function tooLong(head: number, section: string | undefined): RingError {
  return new RingError(`chain of head ${head}: 2^32 bytes or more`, { section, descriptor: head });
}

/**
 * Checks the length of a request that was read.
 *
 * @param section of the rule, where there is one
 * @throws {RingError} when 32 bits cannot count it
 */
export function checkLength(chain: Chain, head: number, section?: string): void {
  if (chain.readable.byteLength + chain.writable.byteLength >= TWO_32) throw tooLong(head, section);
}

/**
 * Turns tables of descriptors into requests, and says what is wrong with one. Each is read once; only what was read is checked
 * and used.
 *
 * Addresses come as two words of 32 bits, signed: as a whole they would have to be allocated, wherever the compiler makes
 * a call of one of these functions.
 */
export class Descriptors {
  readonly #space: AddressSpace;
  readonly #indirect: boolean;
  readonly #longest: number;
  readonly #sections: DescriptorSections;
  /** The indirect table that is being read. */
  readonly #table: Segments;

  /**
   * For a ring.
   *
   * @param space what the addresses mean
   * @param size entries of the ring
   * @param indirect whether INDIRECT_DESC was negotiated
   * @param table how words of an indirect table are read
   * @param sections what errors cite
   */
  constructor(
    space: AddressSpace,
    size: number,
    indirect: boolean,
    table: Segments = new Segments(),
    sections: DescriptorSections = splitSections,
  ) {
    this.#sections = sections;
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
   * @param owner the descriptor of the ring that leads here: this one, or that of its table
   * @throws {RingError} when it breaks the rules
   */
  #append(
    chain: Chain,
    head: number,
    index: number,
    low: number,
    high: number,
    length: number,
    flags: number,
    owner: number,
  ): void {
    const { writable } = chain;
    const writes = (flags & WRITE) !== 0;
    if (
      (!writes && writable.count > 0) ||
      (length > 0 && !this.#space.appendWords(writes ? writable : chain.readable, low, high, length, writes))
    ) {
      throw this.refused(chain, head, index, low, high, length, flags, owner);
    }
  }

  /** What is wrong with a descriptor that could not be added to a request; parameters as of `#append`. */
  refused(
    chain: Chain,
    head: number,
    index: number,
    low: number,
    high: number,
    length: number,
    flags: number,
    owner: number = index,
  ): RingError {
    const what = `descriptor ${index} of head ${head}`;
    if ((flags & WRITE) === 0 && chain.writable.count > 0) {
      return new RingError(`${what}: readable after writable`, {
        section: this.#sections.order,
        descriptor: owner,
      });
    }
    const address = (low >>> 0) + (high >>> 0) * TWO_32;
    return new RingError(`${what}: 0x${address.toString(16)}+${length} is not in guest memory`, {
      section: this.#sections.fields,
      descriptor: owner,
    });
  }

  /** Opens the table that a descriptor refers to. Returns how many descriptors it has. */
  #open(index: number, low: number, high: number, length: number, flags: number): number {
    if ((flags & NEXT) !== 0) {
      throw this.#wrongTable(index, `descriptor ${index}: INDIRECT together with NEXT`);
    }
    if (!this.#indirect) throw this.#wrongTable(index, `descriptor ${index}: INDIRECT was not negotiated`);
    if (length === 0 || length % DESCRIPTOR_SIZE !== 0) {
      throw this.#wrongTable(
        index,
        `indirect table of ${length} bytes: must be a multiple of ${DESCRIPTOR_SIZE}, more than 0`,
        this.#sections.table,
      );
    }
    this.#table.clear();
    if (!this.#space.appendWords(this.#table, low, high, length, false)) {
      const table = (low >>> 0) + (high >>> 0) * TWO_32;
      throw this.#wrongTable(
        index,
        `indirect table of descriptor ${index}: 0x${table.toString(16)}+${length} is not in guest memory`,
        this.#sections.table,
      );
    }
    return length / DESCRIPTOR_SIZE;
  }

  /** @param index the descriptor that refers to the table */
  #wrongTable(index: number, text: string, section: string = this.#sections.indirect): RingError {
    return new RingError(text, { section, descriptor: index });
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
        throw this.#wrongTable(
          index,
          `indirect table at descriptor ${index} has a loop or is too long: more than ${most} descriptors`,
        );
      }
      const at = entry * DESCRIPTOR_SIZE;
      const last = table.getUint32(at + 12);
      const entryFlags = last & 0xffff;
      if ((entryFlags & INDIRECT) !== 0) {
        throw this.#wrongTable(index, `indirect table at descriptor ${index}: nested table`);
      }
      this.#append(
        chain,
        head,
        entry,
        table.getUint32(at) | 0,
        table.getUint32(at + 4) | 0,
        table.getUint32(at + 8),
        entryFlags,
        index,
      );
      if ((entryFlags & NEXT) === 0) return;
      entry = last >>> 16;
      if (entry >= entries) {
        throw this.#wrongTable(
          index,
          `next descriptor ${entry} in an indirect table of ${entries}`,
          this.#sections.table,
        );
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
      throw this.#wrongTable(
        index,
        `indirect table at descriptor ${index} is too long: ${entries} descriptors, at most ${this.#longest}`,
      );
    }
    const table = this.#table;
    for (let entry = 0; entry < entries; entry++) {
      const at = entry * DESCRIPTOR_SIZE;
      this.#append(
        chain,
        head,
        entry,
        table.getUint32(at) | 0,
        table.getUint32(at + 4) | 0,
        table.getUint32(at + 8),
        table.getUint32(at + 12) >>> 16,
        index,
      );
    }
  }
}
