/**
 * A request: the descriptor chain that a driver made available.
 *
 * @module
 */

import { Segments } from "../memory/segments.ts";
import { Span } from "../memory/span.ts";
import type { Endianness, Struct } from "../protocol/struct.ts";

/** The most bytes that {@link Chain.write} hands to a callback at once: what `crypto.getRandomValues` takes. */
export const MAX_WINDOW = 65536;

/** Fills bytes of guest memory. Returns how many it filled (all, when it returns anything but a number). */
export type Fill = (bytes: Uint8Array<ArrayBuffer>) => unknown;

/**
 * A request of a driver: bytes to read, then room for an answer. The object belongs to its ring slot and is used again
 * for the next request there; a handler may keep it until it has completed it.
 *
 * How the driver cut the bytes into descriptors means nothing (virtio 1.4, 2.7.4): positions count over all of them.
 */
export class Chain {
  /**
   * Names the request while it is in flight: a number below the ring's size that no other request has. In a split ring it
   * is the index of the first descriptor.
   */
  readonly head: number;
  /** What the driver wrote for the device. */
  readonly readable: Segments = new Segments();
  /** Where the device may write. */
  readonly writable: Segments = new Segments();
  /**
   * Bytes written, counted from the start of {@link writable}: what the driver is told. {@link write} counts; who writes
   * to {@link writable} itself sets it.
   */
  written = 0;
  /** For the device: the part of the request that carries data. */
  readonly data: Span = new Span();
  /** Whether the request is in the device's hands. Kept by the ring. */
  inFlight = false;
  /** What the driver calls the request, where it has a name for it (packed ring: buffer id). Kept by the ring. */
  id = 0;
  /** Which request of the ring it is, counted from 0 up to the ring's size and again. Kept by the ring. */
  place = 0;
  /** Descriptors of the ring that it takes. Kept by the ring. */
  slots = 0;
  /**
   * Where the device has got to with it. Kept by the back-end: for owned queues when it was taken, as a count of those before
   * it; negative for the rest.
   */
  turn: number = -1;
  /** When it was taken, where its time is measured; 0 otherwise. Kept by the back-end. */
  since = 0;
  /** For the device: anything that it keeps with the slot, to use it again for the next request there. */
  context: unknown = undefined;
  #taken = 0;

  /** Made by a ring, once per slot. */
  constructor(head: number) {
    this.head = head;
  }

  /**
   * Byte order of the request's numbers: little, except for a legacy driver on a big-endian machine. {@link readable},
   * {@link readStruct} and {@link writeStruct} go by it; who reads and writes bytes must do so too.
   */
  get endianness(): Endianness {
    return "little";
  }

  /** Forgets the request, before the next one. Called by the ring. */
  reset(): void {
    this.readable.clear();
    this.writable.clear();
    this.written = 0;
    this.#taken = 0;
  }

  /**
   * Reads on: the next bytes that the driver wrote, as a copy.
   *
   * @param length most bytes to read; all that are left by default
   */
  read(length: number = this.readable.byteLength - this.#taken): Uint8Array<ArrayBuffer> {
    const left = this.readable.byteLength - this.#taken;
    const target = new Uint8Array(Math.max(0, Math.min(length, left)));
    this.#taken += this.readable.copyTo(target, this.#taken);
    return target;
  }

  /**
   * Reads on: a structure.
   *
   * @throws {FieldError} when fewer bytes are left than it has
   */
  readStruct<T>(struct: Struct<T>): T {
    return struct.decode(this.read(struct.size), this.#order);
  }

  /**
   * Writes on: bytes, or whatever a callback fills into the guest's memory itself, up to {@link MAX_WINDOW} bytes a call
   * until there is no room or it fills fewer than it could.
   *
   * @returns bytes written; fewer than given when there is no more room
   */
  write(source: Uint8Array | Fill): number {
    const before = this.written;
    if (typeof source !== "function") {
      this.written += this.writable.copyFrom(source, before);
      return this.written - before;
    }
    for (const view of this.writable.views(before)) {
      for (let at = 0; at < view.length; at += MAX_WINDOW) {
        const window = view.subarray(at, at + MAX_WINDOW);
        const result = source(window);
        const filled = typeof result === "number"
          ? Math.max(0, Math.min(result, window.length))
          : window.length;
        this.written += filled;
        if (filled < window.length) return this.written - before;
      }
    }
    return this.written - before;
  }

  /**
   * Writes on: a structure.
   *
   * @returns bytes written; fewer than it has when there is no more room
   */
  writeStruct<T>(struct: Struct<T>, value: T): number {
    return this.write(struct.encode(value, this.#order));
  }

  /** The byte order in place of a structure's own, if any: one that was declared big-endian is so for every driver. */
  get #order(): Endianness | undefined {
    return this.endianness === "big" ? "big" : undefined;
  }

  /** Keeps the request's memory mapped until {@link unpin}, for a handler that goes on later. */
  pin(): void {
    this.readable.pin();
    this.writable.pin();
  }

  /** Ends {@link pin}. */
  unpin(): void {
    this.readable.unpin();
    this.writable.unpin();
  }
}
