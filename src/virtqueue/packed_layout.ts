/**
 * Layout of the packed ring (virtio 1.4, section 2.8), shared by the device's and the driver's side.
 *
 * @module
 */

import { DESCRIPTOR_SIZE } from "./split_layout.ts";

/** Flags of a descriptor that say whose it is, beside those of the split ring. */
export const PackedFlag = { AVAIL: 0x80, USED: 0x8000 } as const;

/** Both of {@link PackedFlag}. */
export const PACKED_OWNER: number = PackedFlag.AVAIL | PackedFlag.USED;

/** {@link PackedFlag} of a descriptor that the driver makes available while its wrap counter has a value. */
export function availableFlags(wrap: boolean): number {
  return wrap ? PackedFlag.AVAIL : PackedFlag.USED;
}

/** {@link PackedFlag} of a descriptor that the device returns while its wrap counter has a value. */
export function usedFlags(wrap: boolean): number {
  return wrap ? PACKED_OWNER : 0;
}

/** What the other side wants to be told: of everything, of nothing, or of one descriptor. */
export const EventFlag = { ENABLE: 0, DISABLE: 1, DESC: 2 } as const;

/** Bytes of an event suppression structure: 15 bits of slot and the wrap counter, then {@link EventFlag}. */
export const EVENT_SIZE = 4;

/** Bytes of each part of a ring with `size` entries. */
export function packedRingSizes(size: number): { descriptor: number; available: number; used: number } {
  return { descriptor: DESCRIPTOR_SIZE * size, available: EVENT_SIZE, used: EVENT_SIZE };
}

/** The wrap counter in a position: its other 15 bits are the slot. */
export const WRAP = 0x8000;

/** A slot with its wrap counter in 16 bits, as event suppression structures and SET_VRING_BASE have it. */
export function packedPosition(slot: number, wrap: boolean): number {
  return wrap ? slot | WRAP : slot;
}

/** The position some descriptors further on; at the end of the ring the wrap counter changes. */
export function advancePosition(position: number, by: number, size: number): number {
  const slot = (position & ~WRAP) + by;
  return slot < size ? slot | position & WRAP : slot - size | ~position & WRAP;
}

/**
 * Both positions of a ring in the 32 bits of SET_VRING_BASE: the next to be made available in the lower half, the next to
 * be returned in the upper.
 */
export function packedBase(available: number, used: number): number {
  return (used << 16 | available) >>> 0;
}

/** The initial positions: slot 0, wrap counters 1. */
export const PACKED_START: number = packedBase(WRAP, WRAP);

/**
 * Whether the other side wants to be told (virtio 1.4, 2.8.10), of going on from a slot `before` to the position `after`.
 *
 * @param event the other side's event suppression structure as a little-endian number
 * @param eventIdx whether EVENT_IDX was negotiated, without which nobody asks for a single descriptor
 */
export function needPackedEvent(
  event: number,
  eventIdx: boolean,
  after: number,
  before: number,
  size: number,
): boolean {
  const flags = event >>> 16 & 3;
  // The value without a meaning counts as enabled: a needless notification does no harm.
  if (flags !== EventFlag.DESC || !eventIdx) return flags !== EventFlag.DISABLE;
  const slot = after & ~WRAP;
  // Counted from the start of the lap that `after` is in, where all slots of the lap before are negative.
  const wanted = (event & ~WRAP & 0xffff) - (((event ^ after) & WRAP) !== 0 ? size : 0);
  const from = before < slot ? before : before - size;
  return wanted >= from && wanted < slot;
}
