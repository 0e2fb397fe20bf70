/**
 * From payload bytes to values and back.
 *
 * @module
 */

import { FieldError } from "./error.ts";
import { type Fields, nativeEndianness, Struct } from "./struct.ts";

/** One kind of payload. */
export interface Codec<T> {
  /** The fewest bytes it can have. */
  readonly minimum: number;
  /** The most bytes it can have. */
  readonly maximum: number;
  /**
   * The bytes of a value.
   *
   * @throws {FieldError}
   */
  encode(value: T): Uint8Array<ArrayBuffer>;
  /**
   * The value of bytes whose number lies between {@link minimum} and {@link maximum}.
   *
   * @throws {FieldError} when a field breaks a rule that holds for every peer
   */
  decode(payload: Uint8Array): T;
}

/**
 * A payload of one structure in the machine's byte order.
 *
 * @param validate throws a {@link FieldError} for values that are never right
 */
export function structure<T>(fields: Fields<T>, validate: (value: T) => void = () => {}): Codec<T> {
  const struct = new Struct<T>(fields, nativeEndianness);
  return {
    minimum: struct.size,
    maximum: struct.size,
    encode: (value) => struct.encode(value),
    decode: (payload) => {
      const value = struct.decode(payload);
      validate(value);
      return value;
    },
  };
}

/** No payload at all. */
export const none: Codec<void> = {
  minimum: 0,
  maximum: 0,
  encode: () => new Uint8Array(0),
  decode: () => {},
};

/**
 * Allows some values only.
 *
 * @throws {FieldError} unless `value` is one of those allowed
 */
export function checkOneOf(field: string, value: number, allowed: readonly number[]): void {
  if (!allowed.includes(value)) throw new FieldError(field, allowed.join(" or "), value);
}

/**
 * Demands an alignment.
 *
 * @throws {FieldError} unless `address` is a multiple of `alignment`
 */
export function checkAligned(field: string, address: bigint, alignment: bigint): void {
  if (address % alignment !== 0n) throw new FieldError(field, `a multiple of ${alignment}`, address);
}

/**
 * Demands that a range ends within 64 bits.
 *
 * @throws {FieldError} when `start + length` passes the end
 */
export function checkNoWrap(field: string, start: bigint, length: bigint): void {
  if (start + length > 0xffff_ffff_ffff_ffffn) {
    throw new FieldError(field, `such that adding ${length} bytes stays within 64 bits`, start);
  }
}
