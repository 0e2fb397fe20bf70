/**
 * What the addresses in descriptors mean.
 *
 * @module
 */

import type { Segments } from "./segments.ts";

/** From the addresses that a driver uses to guest memory: directly, or by way of an IOMMU. */
export interface AddressSpace {
  /**
   * Adds a range to a list, split where it crosses from one piece of memory into the next.
   *
   * The address comes as two words of 32 bits, signed: as a whole it would have to be allocated, wherever the compiler makes
   * a call of this.
   *
   * @param low lower half of an address as in a descriptor
   * @param high upper half
   * @param length bytes
   * @param writable whether the device means to write there
   * @returns false when part of it is not in guest memory; the list may then hold the part before
   * @throws when it cannot be said yet, such as for an entry that the IOTLB does not have
   */
  appendWords(segments: Segments, low: number, high: number, length: number, writable: boolean): boolean;
}
