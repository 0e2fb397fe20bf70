/**
 * Addresses behind an IOMMU.
 *
 * @module
 */

import type { AddressSpace } from "./address_space.ts";
import type { GuestMemory } from "./guest_memory.ts";
import type { Region } from "./region.ts";
import type { Segments } from "./segments.ts";

const TWO_32 = 0x1_0000_0000;

/** Rights of an entry (vhost-user, "IOTLB message"): 1 read, 2 write, 3 both. */
export const Access = { READ: 1, WRITE: 2 } as const;

/** One mapping. */
export interface IotlbEntry {
  /** First I/O virtual address. */
  readonly iova: number;
  /** Bytes. */
  readonly size: number;
  /** Address of the first byte in the front-end (or in the guest, under GPA_ADDRESSES). */
  readonly address: number;
  /** {@link Access}. */
  readonly permission: number;
}

/** An address that the IOTLB does not have, or not with the right that is needed. The front-end may know it. */
export class IotlbMiss extends Error {
  /** The error's class name. */
  override readonly name = "IotlbMiss";
  /** The address. */
  readonly iova: number;
  /** {@link Access} that is needed; the sum of both for what is read and written. */
  readonly access: number;

  /** A miss. */
  constructor(iova: number, access: number) {
    super(`IOTLB has no entry for ${access === Access.READ ? "reading" : "writing"} 0x${iova.toString(16)}`);
    this.iova = iova;
    this.access = access;
  }
}

/** A byte of guest memory. */
interface Place {
  readonly region: Region;
  readonly offset: number;
}

/**
 * The entries that the front-end has given, as the address space of the rings: from I/O virtual to front-end to guest
 * memory. Entries never overlap.
 */
export class Iotlb implements AddressSpace {
  readonly #memory: GuestMemory;
  readonly #most: number;
  readonly #find: (address: number) => Place | undefined;
  /** By the order in which they came. */
  readonly #entries = new Map<number, IotlbEntry>();
  /** The same by the order of their addresses. */
  readonly #sorted: IotlbEntry[] = [];

  /**
   * An empty IOTLB.
   *
   * @param guestAddresses whether entries hold guest instead of front-end addresses (GPA_ADDRESSES)
   * @param most entries that are kept; the oldest go first and are asked for again
   */
  constructor(memory: GuestMemory, guestAddresses: boolean, most = 65536) {
    this.#most = most;
    this.#memory = memory;
    this.#find = (address) => {
      const region = guestAddresses ? memory.find(address) : memory.findUser(address, 1);
      if (region === undefined) return undefined;
      return { region, offset: address - (guestAddresses ? region.guestAddress : region.userAddress) };
    };
  }

  /** Guest memory behind it. */
  get memory(): GuestMemory {
    return this.#memory;
  }

  /** Entries. */
  get size(): number {
    return this.#entries.size;
  }

  /** Adds an entry; what it overlaps goes away whole, and is asked for again. */
  update(entry: IotlbEntry): void {
    this.invalidate(entry.iova, entry.size);
    if (this.#entries.size >= this.#most) {
      const [oldest] = this.#entries.values();
      this.invalidate(oldest.iova, oldest.size);
    }
    this.#entries.set(entry.iova, entry);
    this.#sorted.splice(this.#after(entry.iova), 0, entry);
  }

  /** Removes every entry that shares an address with a range. Returns whether there were any. */
  invalidate(iova: number, size: number): boolean {
    const [from, to] = this.#range(iova, size);
    for (const entry of this.#sorted.splice(from, to - from)) this.#entries.delete(entry.iova);
    return to > from;
  }

  /** Whether an entry says something else of an address than those that are there: another place, or fewer rights. */
  contradicts({ iova, size, address, permission }: IotlbEntry): boolean {
    const [from, to] = this.#range(iova, size);
    for (let i = from; i < to; i++) {
      const known = this.#sorted[i];
      if (known.address - known.iova !== address - iova) return true;
      if ((known.permission & ~permission) !== 0) return true;
    }
    return false;
  }

  /** Removes all entries. */
  clear(): void {
    this.#entries.clear();
    this.#sorted.length = 0;
  }

  /** Number of entries that start at an address or before. */
  #after(iova: number): number {
    const sorted = this.#sorted;
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sorted[middle].iova <= iova) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The entries that share an address with a range, as places in {@link #sorted}. */
  #range(iova: number, size: number): [from: number, to: number] {
    if (size <= 0) return [0, 0];
    const from = this.#after(iova) - (this.lookup(iova) === undefined ? 0 : 1);
    return [from, Math.max(from, this.#after(iova + size - 1))];
  }

  /** The entry that has an address, or `undefined`. */
  lookup(iova: number): IotlbEntry | undefined {
    const entry = this.#sorted[this.#after(iova) - 1];
    return entry !== undefined && iova < entry.iova + entry.size ? entry : undefined;
  }

  /** Whether there is now what was missed. */
  has({ iova, access }: IotlbMiss): boolean {
    const entry = this.lookup(iova);
    return entry !== undefined && (entry.permission & access) === access;
  }

  /**
   * Adds a range of I/O virtual addresses to a list.
   *
   * @returns false when an entry points outside guest memory
   * @throws {IotlbMiss} when an entry is missing, or lacks the right
   */
  append(segments: Segments, iova: number, length: number, writable: boolean): boolean {
    return this.resolve(segments, iova, length, writable ? Access.WRITE : Access.READ);
  }

  /** {@link append} for the rings. */
  appendWords(segments: Segments, low: number, high: number, length: number, writable: boolean): boolean {
    return this.append(segments, (low >>> 0) + (high >>> 0) * TWO_32, length, writable);
  }

  /** {@link append} by what is needed, of {@link Access}. */
  resolve(segments: Segments, iova: number, length: number, access: number): boolean {
    let at = iova;
    let left = length;
    while (left > 0) {
      const entry = this.lookup(at);
      if (entry === undefined || (entry.permission & access) !== access) throw new IotlbMiss(at, access);
      const within = at - entry.iova;
      const found = this.#find(entry.address + within);
      if (found === undefined) return false;
      const size = Math.min(left, entry.size - within, found.region.size - found.offset);
      segments.push(found.region, found.offset, size);
      at += size;
      left -= size;
    }
    return true;
  }
}
