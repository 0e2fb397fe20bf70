/**
 * Addresses behind an IOMMU.
 *
 * @module
 */

import type { AddressSpace } from "./address_space.ts";
import type { GuestMemory } from "./guest_memory.ts";
import type { Region } from "./region.ts";
import type { Segments } from "./segments.ts";

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
  /** {@link Access} that is needed. */
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

/** The most entries that are kept; the oldest go first and are asked for again. */
const MAX_ENTRIES = 65536;

/**
 * The entries that the front-end has given, as the address space of the rings: from I/O virtual to front-end to guest
 * memory. Entries never overlap.
 */
export class Iotlb implements AddressSpace {
  readonly #memory: GuestMemory;
  readonly #find: (address: number) => Place | undefined;
  readonly #entries = new Map<number, IotlbEntry>();
  /** Entries in the order of their addresses; made anew when it is looked for after a change. */
  #sorted: IotlbEntry[] | undefined;

  /**
   * An empty IOTLB.
   *
   * @param guestAddresses whether entries hold guest instead of front-end addresses (GPA_ADDRESSES)
   */
  constructor(memory: GuestMemory, guestAddresses: boolean) {
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

  /** Adds an entry; it replaces what it overlaps. */
  update(entry: IotlbEntry): void {
    this.invalidate(entry.iova, entry.size);
    if (this.#entries.size >= MAX_ENTRIES) {
      const oldest = this.#entries.keys().next().value;
      if (oldest !== undefined) this.#entries.delete(oldest);
    }
    this.#entries.set(entry.iova, entry);
    this.#sorted = undefined;
  }

  /** Removes every entry that shares an address with a range. Returns whether there were any. */
  invalidate(iova: number, size: number): boolean {
    let found = false;
    for (const entry of this.#entries.values()) {
      if (entry.iova < iova + size && iova < entry.iova + entry.size) {
        this.#entries.delete(entry.iova);
        found = true;
      }
    }
    if (found) this.#sorted = undefined;
    return found;
  }

  /** Removes all entries. */
  clear(): void {
    this.#entries.clear();
    this.#sorted = undefined;
  }

  /** The entry that has an address, or `undefined`. */
  lookup(iova: number): IotlbEntry | undefined {
    const sorted = this.#sorted ??= [...this.#entries.values()].sort((a, b) => a.iova - b.iova);
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sorted[middle].iova <= iova) low = middle + 1;
      else high = middle;
    }
    const entry = sorted[low - 1];
    return entry !== undefined && iova < entry.iova + entry.size ? entry : undefined;
  }

  /**
   * Adds a range of I/O virtual addresses to a list.
   *
   * @returns false when an entry points outside guest memory
   * @throws {IotlbMiss} when an entry is missing, or lacks the right
   */
  append(segments: Segments, iova: number, length: number, writable: boolean): boolean {
    const access = writable ? Access.WRITE : Access.READ;
    let at = iova;
    let left = length;
    while (left > 0) {
      const entry = this.lookup(at);
      if (entry === undefined || (entry.permission & access) === 0) throw new IotlbMiss(at, access);
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
