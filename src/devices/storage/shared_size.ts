/**
 * A number that all threads of the process see.
 *
 * @module
 */

/** The size of a storage that several threads use: who changes it in one changes it in all. */
export class SharedSize {
  /** To be sent to another thread. */
  readonly cell: SharedArrayBuffer;
  readonly #bytes: Float64Array;

  /** A new one, or one that another thread has made. */
  constructor(cell: SharedArrayBuffer = new SharedArrayBuffer(8)) {
    this.cell = cell;
    this.#bytes = new Float64Array(cell);
  }

  /** Bytes. */
  get bytes(): number {
    return this.#bytes[0];
  }
  set bytes(bytes: number) {
    this.#bytes[0] = bytes;
  }
}
