/**
 * What a device needs of a ring, whatever its format.
 *
 * @module
 */

import type { DirtyLog } from "../memory/dirty_log.ts";
import type { Region } from "../memory/region.ts";
import type { Chain } from "./chain.ts";
import type { InflightRegion } from "./inflight.ts";
import type { RingDump } from "./ring_dump.ts";

export { RingError, type RingErrorPlace } from "./ring_error.ts";

/** Memory in one piece: a region, or scattered pages that were put in a row. */
export type RingMemory = Pick<Region, "buffer" | "bufferOffset" | "guestAddress">;

/** Where one part of a ring lies: in one piece. */
export interface RingPart {
  /** The memory. */
  readonly region: RingMemory;
  /** Offset of the first byte in it. */
  readonly offset: number;
}

/** Where a ring lies, in the words of SET_VRING_ADDR. */
export interface RingPlace {
  /** Split: descriptor table. Packed: descriptor ring. */
  readonly descriptor: RingPart;
  /** Split: available ring. Packed: driver event suppression. */
  readonly available: RingPart;
  /** Split: used ring. Packed: device event suppression. */
  readonly used: RingPart;
}

/** How a ring was negotiated, and where it goes on. */
export interface RingOptions {
  /** EVENT_IDX: both sides say at which index they want to be told. */
  readonly eventIdx: boolean;
  /** INDIRECT_DESC: a descriptor may name a table of descriptors. */
  readonly indirect: boolean;
  /** IN_ORDER: requests are returned in the order in which they were made available, whenever they complete. */
  readonly inOrder?: boolean;
  /** Position to go on from, as SET_VRING_BASE gives it. What {@link inflight} says comes before that. */
  readonly base: number;
  /** Where requests are recorded that are in flight; those of a device that died are taken first. */
  readonly inflight?: InflightRegion;
}

/** The device's side of a ring. */
export interface Ring {
  /** Entries. */
  readonly size: number;
  /** Requests taken and not yet returned. */
  readonly inFlight: number;
  /** The position to go on from, in the form of SET_VRING_BASE. */
  readonly base: number;
  /** Where to mark what the device has written to, if anywhere (LOG_ALL). */
  log: DirtyLog | undefined;
  /**
   * Whether what the ring itself writes is marked too (VHOST_VRING_F_LOG): the guest address that SET_VRING_ADDR gives for
   * that. A packed ring, for which it has no meaning, goes by the addresses that it has.
   */
  logUsed: number | undefined;

  /** The ring's memory has moved; positions stay. */
  bind(place: RingPlace): void;

  /** Whether the driver has made something available that was not taken yet. */
  available(): boolean;

  /**
   * Takes the next request.
   *
   * @returns the request, or `null` when there is none
   * @throws {RingError} when the driver broke the ring
   */
  pop(): Chain | null;

  /** Returns a request with {@link Chain.written} bytes; the driver sees it after {@link publish}. */
  push(chain: Chain): void;

  /** The requests that were taken and not yet returned. Allocates: not for the data plane. */
  taken(): Chain[];

  /**
   * Makes the requests that were taken and not yet returned available again, by going back. Call it after {@link publish},
   * and only when all were returned in the order in which they were taken.
   *
   * @returns false when that is not possible: among them may be requests of a device that died
   */
  rewind(): boolean;

  /** Shows the driver what was returned. Returns whether it wants to be told. */
  publish(): boolean;

  /** Asks the driver not to tell of new requests. A hint; it may do so all the same. */
  suppress(): void;

  /** Asks the driver to tell of new requests. Returns whether some came in before it could know. */
  arm(): boolean;

  /**
   * The ring as it is now, for those who look for what went wrong. Allocates: not for the data plane.
   *
   * @param offending the descriptor in question; by default those around the next one to take are shown
   */
  dump(offending?: number): RingDump;
}
