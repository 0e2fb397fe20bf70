/**
 * An EEPROM.
 *
 * @module
 */

import type { I2cPart } from "./bus.ts";

/** What an EEPROM is made of. */
export interface EepromOptions {
  /** Its address; 0x50 by default, the first that these parts can have. */
  readonly address?: number;
  /** Bytes: a power of two from 128 to 65536; 256 by default. Ignored with {@link data}. */
  readonly size?: number;
  /** What is in it; stays the caller's, and changes as the guest writes. 0xff by default, as in a new one. */
  readonly data?: Uint8Array;
  /** Bytes that are written at once, a power of two: a write past the end of a page goes on at its start. 8, or 32 from 4 KiB, by default. */
  readonly pageSize?: number;
  /** Bytes of a position, 1 or 2; by default 1 up to 256 bytes, and 2 above. */
  readonly addressBytes?: 1 | 2;
  /** Whether writes are refused, as by the part's pin for that. */
  readonly readOnly?: boolean;
  /** Called after the guest has written: bytes from `offset` on, within one page. */
  readonly onWrite?: (offset: number, length: number) => void;
}

function powerOfTwo(number: number, least: number, most: number): boolean {
  return Number.isInteger(Math.log2(number)) && number >= least && number <= most;
}

/**
 * A serial EEPROM of the 24C family: a write sets the position, then writes what follows; a read goes on from the position,
 * and at the end from the start. A write cycle takes no time.
 *
 * With one byte of position a part has at most 256 bytes: those of 512 to 2048 bytes that take more addresses on the bus for
 * the rest (24C04 to 24C16) are not there.
 */
export class Eeprom implements I2cPart {
  /** Its address. */
  readonly address: number;
  /** What is in it. */
  readonly data: Uint8Array;
  readonly #pageSize: number;
  readonly #addressBytes: number;
  readonly #readOnly: boolean;
  readonly #onWrite: (offset: number, length: number) => void;
  #position = 0;

  /**
   * Makes one.
   *
   * @throws {RangeError} for a size that cannot be
   */
  constructor(options: EepromOptions = {}) {
    const data = options.data ?? new Uint8Array(options.size ?? 256).fill(0xff);
    const { address = 0x50, readOnly = false, onWrite = () => {} } = options;
    const { pageSize = data.length < 4096 ? 8 : 32, addressBytes = data.length > 256 ? 2 : 1 } = options;
    if (!powerOfTwo(data.length, 128, addressBytes === 2 ? 65536 : 256)) {
      throw new RangeError(
        `an EEPROM has a power of two of bytes, 128 to ${
          addressBytes === 2 ? 65536 : 256
        } with ${addressBytes} ` +
          `of position; got ${data.length}`,
      );
    }
    if (!powerOfTwo(pageSize, 1, data.length)) {
      throw new RangeError(`pageSize must be a power of two up to ${data.length}, got ${pageSize}`);
    }
    this.address = address;
    this.data = data;
    this.#pageSize = pageSize;
    this.#addressBytes = addressBytes;
    this.#readOnly = readOnly;
    this.#onWrite = onWrite;
  }

  /** {@link I2cPart.write}. */
  write(bytes: Uint8Array): boolean {
    const head = this.#addressBytes;
    // One byte where two are due leaves the lower half as it was, zero here.
    if (bytes.length === 0) return true;
    const position = head === 1 ? bytes[0] : bytes[0] << 8 | (bytes[1] ?? 0);
    this.#position = position & this.data.length - 1;
    if (bytes.length <= head) return true;
    if (this.#readOnly) return false;
    const page = this.#position & ~(this.#pageSize - 1);
    for (let i = head; i < bytes.length; i++) {
      this.data[this.#position] = bytes[i];
      this.#position = page | (this.#position + 1 & this.#pageSize - 1);
    }
    this.#onWrite(page, this.#pageSize);
    return true;
  }

  /** {@link I2cPart.read}. */
  read(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) {
      bytes[i] = this.data[this.#position];
      this.#position = this.#position + 1 & this.data.length - 1;
    }
    return bytes;
  }
}
