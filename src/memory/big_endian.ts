/**
 * Numbers that a big-endian driver has written.
 *
 * @module
 */

import { Segments } from "./segments.ts";

const TWO_32 = 0x1_0000_0000;

/** {@link Segments} whose numbers are big-endian: requests of a legacy driver on a big-endian machine. */
export class BigEndianSegments extends Segments {
  /**
   * Two bytes, big-endian.
   *
   * @throws {RangeError} past the end
   */
  override getUint16(position: number): number {
    return this.getUint8(position) << 8 | this.getUint8(position + 1);
  }

  /**
   * Four bytes, big-endian.
   *
   * @throws {RangeError} past the end
   */
  override getUint32(position: number): number {
    return this.getUint16(position) * 0x1_0000 + this.getUint16(position + 2);
  }

  /**
   * Eight bytes, big-endian, as a plain number: above 2^53 it is rounded, and so still larger than any size that this
   * machine can have.
   *
   * @throws {RangeError} past the end
   */
  override getUint64(position: number): number {
    return this.getUint32(position) * TWO_32 + this.getUint32(position + 4);
  }
}
