/**
 * The memory of a guest: regions, and what an address means.
 *
 * @module
 */

import type { AddressSpace } from "./address_space.ts";
import { MemoryError, Region, type RegionPlace } from "./region.ts";
import type { Segments } from "./segments.ts";

const TWO_32 = 0x1_0000_0000;
const WINDOW = 0x8000_0000;

function overlap(a: number, b: number, sizeA: number, sizeB: number): boolean {
  return a < b + sizeB && b < a + sizeA;
}

/** Checks each place from index `from` on against those before it. */
function checkDisjoint(places: readonly RegionPlace[], from = 0): void {
  places.slice(from).forEach((a, i) => {
    for (const b of places.slice(0, from + i)) {
      for (const space of ["guestAddress", "userAddress"] as const) {
        if (overlap(a[space], b[space], a.size, b.size)) {
          throw new MemoryError(
            `regions overlap in ${space === "guestAddress" ? "guest" : "user"} addresses: ` +
              `0x${a[space].toString(16)}+0x${a.size.toString(16)} and ` +
              `0x${b[space].toString(16)}+0x${b.size.toString(16)}`,
          );
        }
      }
    }
  });
}

/** A region with the file that it lies in. */
export interface RegionSource extends RegionPlace {
  /** The file; stays the caller's. */
  readonly fd: number;
  /** False maps it without access until {@link Region.serveFaults}. */
  readonly accessible?: boolean;
}

/**
 * The regions that a front-end shares. They may be replaced while rings run: what is unchanged stays mapped where it is,
 * what goes away stays until the last request that uses it has completed.
 */
export class GuestMemory implements AddressSpace {
  /** The most regions that {@link add} accepts. */
  readonly maxRegions: number;
  /** Called when a region is lost, of those that were mapped after this was set. */
  onLost: (error: MemoryError) => void = () => {};
  #regions: readonly Region[] = [];
  #last: Region | undefined;
  // The window: a part of a region that lies within 2 GiB of one upper half of addresses. Without one its size is negative.
  #windowRegion: Region | undefined;
  #windowHigh = 0;
  #windowLow = 0;
  #windowOffset = 0;
  #windowSize = -1;

  /** Memory without regions. */
  constructor(maxRegions = 509) {
    this.maxRegions = maxRegions;
  }

  /** The regions, in no order that matters. */
  get regions(): readonly Region[] {
    return this.#regions;
  }

  /**
   * Replaces the whole table: builds the new one completely, then swaps.
   *
   * @returns whether anything has changed
   * @throws {MemoryError} for regions that overlap or exceed their file; the old table stays
   * @throws {OsError} when a region cannot be mapped; the old table stays
   */
  replace(sources: readonly RegionSource[]): boolean {
    checkDisjoint(sources);
    const kept = new Set<Region>();
    const fresh: Region[] = [];
    try {
      for (const source of sources) {
        const same = this.#regions.find((region) => !kept.has(region) && region.equals(source, source.fd));
        if (same === undefined) fresh.push(this.#map(source));
        else kept.add(same);
      }
    } catch (error) {
      for (const region of fresh) region.retire();
      throw error;
    }
    return this.adopt([...kept, ...fresh]);
  }

  #map(source: RegionSource): Region {
    const region = new Region(source, source.fd, source.accessible);
    try {
      region.watch((error) => this.onLost(error));
    } catch (error) {
      region.retire();
      throw error;
    }
    return region;
  }

  /** Replaces the whole table by regions that are mapped already. Returns whether anything has changed. */
  adopt(regions: readonly Region[]): boolean {
    const gone = this.#regions.filter((region) => !regions.includes(region));
    if (gone.length === 0 && regions.length === this.#regions.length) return false;
    this.#set(regions);
    for (const region of gone) region.retire();
    return true;
  }

  /**
   * Adds a region.
   *
   * @throws {MemoryError} when it overlaps another, exceeds its file, or is one too many
   * @throws {OsError} when it cannot be mapped
   */
  add(source: RegionSource): Region {
    if (this.#regions.length >= this.maxRegions) {
      throw new MemoryError(`at most ${this.maxRegions} regions`);
    }
    checkDisjoint([...this.#regions, source], this.#regions.length);
    const region = this.#map(source);
    this.#set([...this.#regions, region]);
    return region;
  }

  /**
   * Takes a region away. It is named by its addresses and size; the offset in the file does not count.
   *
   * @throws {MemoryError} when there is none like it
   */
  remove(place: RegionPlace): void {
    const found = this.#regions.find((region) =>
      region.guestAddress === place.guestAddress && region.userAddress === place.userAddress &&
      region.size === place.size
    );
    if (found === undefined) {
      throw new MemoryError(
        `no region with guest address 0x${place.guestAddress.toString(16)}, ` +
          `user address 0x${place.userAddress.toString(16)} and ${place.size} bytes`,
      );
    }
    this.#set(this.#regions.filter((region) => region !== found));
    found.retire();
  }

  /** Takes all regions away. */
  clear(): void {
    const gone = this.#regions;
    this.#set([]);
    for (const region of gone) region.retire();
  }

  #set(regions: readonly Region[]): void {
    this.#regions = regions;
    this.#last = this.#windowRegion = undefined;
    this.#windowSize = -1;
  }

  /** The region that holds a guest address, or `undefined`. */
  find(address: number): Region | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.guestAddress && address < last.guestEnd) return last;
    for (const region of this.#regions) {
      if (address >= region.guestAddress && address < region.guestEnd && region.accessible) {
        return this.#last = region;
      }
    }
    return undefined;
  }

  /** The region that holds a range of the front-end's addresses, or `undefined`. */
  findUser(address: number, length: number): Region | undefined {
    return this.#regions.find((region) =>
      address >= region.userAddress && address + length <= region.userAddress + region.size &&
      region.accessible
    );
  }

  /**
   * Adds a guest range to a list, split where it crosses from one region into the next.
   *
   * @returns false when part of it is not in any region; the list may then hold the part before
   */
  append(segments: Segments, address: number, length: number): boolean {
    let at = address;
    let left = length;
    while (left > 0) {
      const region = this.find(at);
      if (region === undefined) return false;
      const offset = at - region.guestAddress;
      const size = Math.min(left, region.size - offset);
      segments.push(region, offset, size);
      at += size;
      left -= size;
    }
    return true;
  }

  /** {@link append} for the rings. */
  appendWords(segments: Segments, low: number, high: number, length: number): boolean {
    // Nearly always near the descriptor before. Whole numbers of 32 bits, and short enough to be compiled into the ring's
    // own loop.
    const into = (low - this.#windowLow) | 0;
    if (high === this.#windowHigh && into >= 0 && length <= this.#windowSize - into) {
      segments.push(this.#windowRegion as Region, this.#windowOffset + into, length);
      return true;
    }
    return this.#appendElsewhere(segments, low, high, length);
  }

  #appendElsewhere(segments: Segments, low: number, high: number, length: number): boolean {
    const address = (low >>> 0) + (high >>> 0) * TWO_32;
    const region = this.#whole(low, high, length);
    if (region === undefined) return this.append(segments, address, length);
    this.#openWindow(region, address);
    segments.push(region, address - region.guestAddress, length);
    return true;
  }

  /** Places the window on the part of a region, up to 2 GiB, in which an address lies. */
  #openWindow(region: Region, address: number): void {
    const start = Math.max(region.guestAddress, Math.floor(address / WINDOW) * WINDOW);
    this.#windowRegion = region;
    this.#windowHigh = Math.floor(start / TWO_32) | 0;
    this.#windowLow = start | 0;
    this.#windowOffset = start - region.guestAddress;
    this.#windowSize = Math.min(region.guestEnd, Math.floor(address / WINDOW) * WINDOW + WINDOW) - start - 1;
  }

  /** The region that holds all of a range, or `undefined`. */
  #whole(low: number, high: number, length: number): Region | undefined {
    const address = (low >>> 0) + (high >>> 0) * TWO_32;
    for (let i = 0; i < this.#regions.length; i++) {
      const region = this.#regions[i];
      if (address >= region.guestAddress && address + length <= region.guestEnd && region.accessible) {
        return this.#last = region;
      }
    }
    return undefined;
  }
}
