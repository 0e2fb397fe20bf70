/**
 * The driver's side of a ring, whatever its format.
 *
 * @module
 */

import type { Endianness } from "../protocol/struct.ts";
import type { Piece } from "./shared_memory.ts";

/** A range of guest memory for one descriptor. */
export interface Buffer {
  /** Guest physical address. */
  readonly guestAddress: number;
  /** Bytes. */
  readonly length: number;
}

/** A request that the device has returned. */
export interface Used {
  /** What {@link DriverRing.add} returned. */
  readonly head: number;
  /** Bytes that the device says it wrote. */
  readonly written: number;
}

/** How a driver's ring is laid out and negotiated. */
export interface DriverRingOptions {
  /** Entries, up to 32768; a power of two in a split ring. */
  readonly size: number;
  /** Whether EVENT_IDX was negotiated. */
  readonly eventIdx: boolean;
  /** Whether each request goes into a table of its own, of this many descriptors at most; 0 for direct ones. */
  readonly tableSize?: number;
  /** Byte order of a split ring's fields; little by default. Legacy drivers have that of their machine. */
  readonly endianness?: Endianness;
  /** Whether IN_ORDER was negotiated: the device may return many requests by naming the last. */
  readonly inOrder?: boolean;
}

/** A back-end that breaks the ring's rules. */
export class DriverRingError extends Error {
  /** The error's class name. */
  override readonly name = "DriverRingError";
}

/** A ring in shared memory, as a driver uses it. It neither kicks nor waits; it says when to. */
export interface DriverRing {
  /** Entries. */
  readonly size: number;
  /** What SET_VRING_ADDR calls the descriptor area. */
  readonly descriptor: Piece;
  /** What SET_VRING_ADDR calls the available area: the driver writes it. */
  readonly available: Piece;
  /** What SET_VRING_ADDR calls the used area: the device writes it. */
  readonly used: Piece;
  /** Descriptors that are free. */
  readonly free: number;
  /** Position to give to SET_VRING_BASE: up to here everything that was returned has been taken. */
  readonly base: number;

  /**
   * Adds a request; the device sees it after {@link publish}.
   *
   * @returns a number below {@link size} that no other request in flight has, or -1 when too few descriptors are free
   * @throws {RangeError} for a request without descriptors, or with too many for its table or the ring
   */
  add(readable: readonly Buffer[], writable: readonly Buffer[]): number;

  /** Shows the device what was added. Returns whether it wants a kick. */
  publish(): boolean;

  /**
   * Takes the next request that the device has returned.
   *
   * @returns the request, or `null` when there is none
   * @throws {DriverRingError} when the device returns what it does not have
   */
  take(): Used | null;

  /** Asks the device not to interrupt. A hint; it may do so all the same. */
  suppress(): void;

  /** Asks the device to interrupt. Returns whether it has returned something before it could know. */
  arm(): boolean;

  /** Starts anew, as if nothing had ever been added. No device may be working on the ring. */
  reset(): void;
}
