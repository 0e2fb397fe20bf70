/**
 * Numbers of logical units, as requests, events and REPORT LUNS write them (virtio 1.4, section 5.6.6.1; SAM-5, section 4.7).
 *
 * @module
 */

/**
 * The number in the first four bytes of an address: 1, target, then 14 bits in the flat form or one byte in the simple one.
 * -1 for another target than 0, or another form.
 */
export function lunOf(first: number, target: number, high: number, low: number): number {
  if (first !== 1 || target !== 0 || high >= 0x80) return -1;
  return high >= 0x40 ? (high & 0x3f) << 8 | low : high === 0 ? low : -1;
}

/** Two bytes with a number, in the simple form where that is enough. */
export function shortLun(lun: number): number {
  return lun < 256 ? lun : 0x4000 | lun;
}
