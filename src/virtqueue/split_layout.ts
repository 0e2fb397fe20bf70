/**
 * Layout of the split ring (virtio 1.4, section 2.7), shared by the device's and the driver's side.
 *
 * @module
 */

/** Flags of a descriptor. */
export const DescriptorFlag = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const;

/** `avail.flags`: the driver does not want interrupts. */
export const NO_INTERRUPT = 1;
/** `used.flags`: the device does not want kicks. */
export const NO_NOTIFY = 1;

/** Bytes of a descriptor. */
export const DESCRIPTOR_SIZE = 16;
/** The most entries of a ring. */
export const MAX_RING_SIZE = 32768;

/** Bytes of each part of a ring with `size` entries, the event words included when EVENT_IDX was negotiated. */
export function splitRingSizes(
  size: number,
  eventIdx: boolean,
): { descriptor: number; available: number; used: number } {
  const event = eventIdx ? 2 : 0;
  return { descriptor: DESCRIPTOR_SIZE * size, available: 4 + 2 * size + event, used: 4 + 8 * size + event };
}

/** 16 bits in the other byte order. */
export function swap16(value: number): number {
  return (value & 0xff) << 8 | value >>> 8 & 0xff;
}

/** 32 bits in the other byte order. */
export function swap32(value: number): number {
  return (swap16(value) << 16 | swap16(value >>> 16)) >>> 0;
}

/**
 * Whether the other side wants to be told, by EVENT_IDX (virtio 1.4, 2.7.10): an index `event` was passed on the way
 * from `before` to `after`.
 */
export function needEvent(event: number, after: number, before: number): boolean {
  return ((after - event - 1) & 0xffff) < ((after - before) & 0xffff);
}
