/**
 * Numbers of the I²C adapter (virtio 1.4, section 5.18; Linux `virtio_i2c.h`).
 *
 * @module
 */

/** Feature bits of the device type. */
export const i2cFeatures = { ZERO_LENGTH_REQUEST: 0 } as const;

/** Flags of a request. */
export const I2cFlag = { FAIL_NEXT: 1, M_RD: 2 } as const;

/** The last byte of a request, written by the device. */
export const I2cStatus = { OK: 0, ERR: 1 } as const;

/** Bytes before the data: u16 addr, u16 padding, u32 flags. */
export const HEADER_SIZE = 8;

/** The most bytes of one segment: what the length of Linux's `i2c_msg` can say. */
export const MAX_SEGMENT = 0xffff;

/**
 * The address in a request: 7 bits from bit 1, or 10 bits of which the upper two stand behind the code 11110
 * (virtio 1.4, 5.18.6.1).
 *
 * @returns -1 for what is no address
 */
export function decodeAddress(addr: number): number {
  if ((addr & 0xff01) === 0 && (addr & 0xf8) !== 0xf0) return addr >>> 1;
  if ((addr & 0x00f9) === 0xf0) return TEN_BIT | (addr & 0x06) << 7 | addr >>> 8;
  return -1;
}

/** Set in an address that has 10 bits: 0x0a and the 10-bit address 0x00a are not the same. */
export const TEN_BIT = 0x8000;
