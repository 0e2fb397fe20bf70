/**
 * Messages of the System Control and Management Interface (Arm DEN0056, "SCMI").
 *
 * @module
 */

/** The first word of an answer: 0, or what went wrong. */
export const ScmiStatus = {
  SUCCESS: 0,
  NOT_SUPPORTED: -1,
  INVALID_PARAMETERS: -2,
  DENIED: -3,
  NOT_FOUND: -4,
  OUT_OF_RANGE: -5,
  BUSY: -6,
  COMMS_ERROR: -7,
  GENERIC_ERROR: -8,
  HARDWARE_ERROR: -9,
  PROTOCOL_ERROR: -10,
} as const;

/** Messages that every protocol has. */
export const ScmiMessage = { VERSION: 0, ATTRIBUTES: 1, MESSAGE_ATTRIBUTES: 2 } as const;

/** Kind of a message in its header; commands are the only ones that an agent sends. */
export const COMMAND = 0;

/** Thrown by a protocol: the command fails with a status. */
export class ScmiError extends Error {
  /** The error's class name. */
  override readonly name = "ScmiError";
  /** A status below 0. */
  readonly status: number;

  /** A failure with a status of {@link ScmiStatus}. */
  constructor(status: number, message = `SCMI status ${status}`) {
    super(message);
    this.status = status;
  }
}

/** What follows the header of a command, read word by word. */
export class ScmiParameters {
  readonly #bytes: DataView;
  #at = 0;

  /** Parameters in these bytes. */
  constructor(bytes: Uint8Array) {
    this.#bytes = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /**
   * The next word.
   *
   * @throws {ScmiError} PROTOCOL_ERROR when there is none
   */
  u32(): number {
    if (this.#at + 4 > this.#bytes.byteLength) {
      throw new ScmiError(ScmiStatus.PROTOCOL_ERROR, "the command is cut off");
    }
    this.#at += 4;
    return this.#bytes.getUint32(this.#at - 4, true);
  }

  /** The next two words as one number, the low one first. */
  u64(): bigint {
    const low = this.u32();
    return BigInt(this.u32()) << 32n | BigInt(low);
  }
}

/** What follows the status of an answer: numbers are words, text has 16 bytes, `bigint` two words. */
export type ScmiValues = readonly (number | bigint | string)[];

/** Bytes of a name. */
export const NAME_SIZE = 16;

/**
 * Carries out one command.
 *
 * @param room bytes that the answer may have behind its status
 * @throws {ScmiError} to fail with a status; any other exception fails with GENERIC_ERROR
 */
export type ScmiHandler = (parameters: ScmiParameters, room: number) => ScmiValues;

/** A protocol. */
export interface ScmiProtocol {
  /** Its number, such as 0x15 for sensors. */
  readonly id: number;
  /** Its version: major in the upper half, minor in the lower. */
  readonly version: number;
  /** What PROTOCOL_ATTRIBUTES answers. */
  attributes(): ScmiValues;
  /** Commands by number, from 3 on; the first three are made of the rest. */
  readonly messages: Readonly<Record<number, ScmiHandler>>;
}

/**
 * An answer's bytes behind its header.
 *
 * @throws {ScmiError} GENERIC_ERROR when there is no room for it
 */
export function encodeValues(values: ScmiValues, room: number): Uint8Array {
  const size = (value: number | bigint | string) =>
    typeof value === "string" ? NAME_SIZE : typeof value === "bigint" ? 8 : 4;
  const length = values.reduce<number>((sum, value) => sum + size(value), 0);
  if (length > room) {
    throw new ScmiError(ScmiStatus.GENERIC_ERROR, `an answer of ${length} bytes, and room for ${room}`);
  }
  const view = new DataView(new ArrayBuffer(length));
  let at = 0;
  for (const value of values) {
    if (typeof value === "number") view.setUint32(at, value, true);
    else if (typeof value === "bigint") view.setBigUint64(at, BigInt.asUintN(64, value), true);
    else {
      // At least one zero ends it.
      const text = new TextEncoder().encode(value).subarray(0, NAME_SIZE - 1);
      new Uint8Array(view.buffer).set(text, at);
    }
    at += size(value);
  }
  return new Uint8Array(view.buffer);
}
