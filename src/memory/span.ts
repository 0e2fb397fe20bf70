/**
 * A part of a request's bytes.
 *
 * @module
 */

import type { Iovec } from "../../ffi/iovec.ts";
import { Segments } from "./segments.ts";

/**
 * The part of a request that carries data: a window on {@link Segments}. It belongs to the request and is valid until
 * that completes.
 */
export class Span {
  /** Bytes. */
  byteLength = 0;
  #segments: Segments = new Segments();
  #start = 0;

  /** Points at `length` bytes from `start`, which must lie within the segments. */
  set(segments: Segments, start: number, length: number): this {
    this.#segments = segments;
    this.#start = start;
    this.byteLength = length;
    return this;
  }

  /** Copies bytes out of guest memory, from a position in the span. Returns how many there were. */
  copyTo(target: Uint8Array, position = 0): number {
    const length = Math.max(0, Math.min(target.length, this.byteLength - position));
    return this.#segments.copyTo(
      length === target.length ? target : target.subarray(0, length),
      this.#start + position,
    );
  }

  /** Copies bytes into guest memory, to a position in the span. Returns how many found room. */
  copyFrom(source: Uint8Array, position = 0): number {
    const length = Math.max(0, Math.min(source.length, this.byteLength - position));
    return this.#segments.copyFrom(
      length === source.length ? source : source.subarray(0, length),
      this.#start + position,
    );
  }

  /** Views of the guest memory itself, in order. They go stale (length 0) when the front-end takes the memory away. */
  views(position = 0): Generator<Uint8Array<ArrayBuffer>> {
    return this.#segments.views(this.#start + position, this.byteLength - position);
  }

  /** Sets the bytes from a position to zero. */
  clear(position = 0): void {
    this.#segments.clearBytes(this.#start + position, this.byteLength - position);
  }

  /** Puts the bytes from a position into an iovec. Returns how many: fewer than there are when the iovec is full. */
  toIovec(iovec: Iovec, position = 0): number {
    return this.#segments.toIovec(iovec, this.#start + position, this.byteLength - position);
  }
}
