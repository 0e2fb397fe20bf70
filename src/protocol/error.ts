/**
 * What a peer did wrong.
 *
 * @module
 */

/** A message that breaks the protocol. Names the message, the field, what was expected and what came. */
export class ProtocolError extends Error {
  /** The error's class name. */
  override readonly name = "ProtocolError";
  /** The message, such as `"SET_VRING_NUM"`; empty when it is not known yet. */
  readonly request: string;

  /**
   * A violation.
   *
   * @param message name of the message
   * @param problem the field, what was expected and what came
   */
  constructor(message: string, problem: string) {
    super(message === "" ? problem : `${message}: ${problem}`);
    this.request = message;
  }
}

/** A value that does not fit its field; turned into a {@link ProtocolError} where the message is known. */
export class FieldError extends Error {
  /** The error's class name. */
  override readonly name = "FieldError";

  /**
   * A value that does not fit.
   *
   * @param field its name
   * @param expected in words
   * @param got the value
   */
  constructor(field: string, expected: string, got: unknown) {
    const shown = typeof got === "bigint" ? `0x${got.toString(16)}` : String(got);
    super(`${field} must be ${expected}, got ${shown}`);
  }
}
