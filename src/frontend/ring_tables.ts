/**
 * Descriptors as both ring formats have them, and tables of them for indirect requests.
 *
 * @module
 */

import { DESCRIPTOR_SIZE } from "../virtqueue/split_layout.ts";
import type { Buffer } from "./driver_ring.ts";
import type { SharedMemory } from "./shared_memory.ts";

/** An indirect table. */
export interface Table {
  /** Guest physical address. */
  readonly guestAddress: number;
  /** The descriptors. */
  readonly view: DataView;
}

/** Lays out tables, each with room for `entries` descriptors. */
export function allocateTables(memory: SharedMemory, count: number, entries: number): readonly Table[] {
  return Array.from({ length: count }, () => {
    const { guestAddress, bytes } = memory.allocate(entries * DESCRIPTOR_SIZE, 16);
    return { guestAddress, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength) };
  });
}

/**
 * Checks that a request has descriptors, and not more than fit its table or the ring.
 *
 * @throws {RangeError} when it has not
 */
export function checkRequest(count: number, most: number): void {
  if (count < 1 || count > most) {
    throw new RangeError(`a request must have 1 to ${most} descriptors, got ${count}`);
  }
}

/**
 * Writes address, length and the last two fields of a descriptor, which the formats order differently.
 *
 * @param little whether the fields are little-endian
 */
export function putDescriptor(
  view: DataView,
  index: number,
  { guestAddress, length }: Buffer,
  field12: number,
  field14: number,
  little = true,
): void {
  const at = index * DESCRIPTOR_SIZE;
  view.setUint32(at + (little ? 0 : 4), guestAddress % 2 ** 32, little);
  view.setUint32(at + (little ? 4 : 0), Math.floor(guestAddress / 2 ** 32), little);
  view.setUint32(at + 8, length, little);
  view.setUint16(at + 12, field12, little);
  view.setUint16(at + 14, field14, little);
}

/** Bytes of some buffers. */
export function roomOf(buffers: readonly Buffer[]): number {
  return buffers.reduce((sum, { length }) => sum + length, 0);
}
