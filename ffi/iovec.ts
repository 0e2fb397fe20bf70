/**
 * A list of memory pieces for `preadv` and `pwritev`.
 *
 * @module
 */

import { littleEndian, Native } from "./native.ts";

/** The most pieces that the kernel takes in one call (IOV_MAX). */
export const MAX_PIECES = 1024;

const TWO_32 = 0x1_0000_0000;
const LOW = littleEndian ? 0 : 1;
const HIGH = 1 - LOW;

/**
 * `struct iovec[]`, filled with plain numbers: four 32-bit stores cost a tenth of two `bigint` stores, and
 * leave no garbage.
 */
export class Iovec {
  /** Address of the list. */
  readonly address: bigint;
  /** Pieces in the list. */
  count = 0;
  /** Sum of the pieces, bytes. */
  byteLength = 0;
  readonly #words: Uint32Array;
  readonly #native: Native;

  /** An empty list with room for `capacity` pieces; one call takes {@link MAX_PIECES} at the most. */
  constructor(capacity = MAX_PIECES) {
    this.#native = new Native(capacity * 16);
    this.#words = new Uint32Array(this.#native.buffer);
    this.address = this.#native.address;
  }

  /** Whether another piece fits. */
  get full(): boolean {
    return this.count * 4 >= this.#words.length;
  }

  /** Starts over. */
  clear(): void {
    this.count = 0;
    this.byteLength = 0;
  }

  /**
   * Adds a piece.
   *
   * @param address in this process, below 2^53
   * @param length bytes, below 2^32
   */
  push(address: number, length: number): void {
    const words = this.#words;
    const at = this.count * 4;
    const high = Math.floor(address / TWO_32);
    words[at + LOW] = address - high * TWO_32;
    words[at + HIGH] = high;
    words[at + 2 + LOW] = length;
    words[at + 2 + HIGH] = 0;
    this.count++;
    this.byteLength += length;
  }

  /** Address of a piece. */
  addressAt(index: number): number {
    return this.#words[4 * index + HIGH] * TWO_32 + this.#words[4 * index + LOW];
  }

  /** Drops bytes from the front, after a call that moved fewer than asked. */
  advance(moved: number): void {
    const words = this.#words;
    let from = 0;
    let left = moved;
    while (from < this.count && left >= words[from * 4 + 2 + LOW]) left -= words[from++ * 4 + 2 + LOW];
    words.copyWithin(0, from * 4, this.count * 4);
    this.count -= from;
    this.byteLength -= moved;
    if (left > 0) {
      const address = words[HIGH] * TWO_32 + words[LOW] + left;
      const high = Math.floor(address / TWO_32);
      words[LOW] = address - high * TWO_32;
      words[HIGH] = high;
      words[2 + LOW] -= left;
    }
  }
}
