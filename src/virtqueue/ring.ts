/**
 * What a device needs of a ring, whatever its format.
 *
 * @module
 */

import type { Region } from "../memory/region.ts";
import type { Chain } from "./chain.ts";

/** A ring that breaks the rules of virtio. It cannot be used until the driver sets it up anew. */
export class RingError extends Error {
  /** The error's class name. */
  override readonly name = "RingError";
}

/** Where one part of a ring lies: wholly within a region. */
export interface RingPart {
  /** The region. */
  readonly region: Region;
  /** Offset of the first byte in it. */
  readonly offset: number;
}

/** Where a ring lies. */
export interface RingPlace {
  /** Descriptor table. */
  readonly descriptor: RingPart;
  /** Available ring (driver area). */
  readonly available: RingPart;
  /** Used ring (device area). */
  readonly used: RingPart;
}

/** The device's side of a ring. */
export interface Ring {
  /** Entries. */
  readonly size: number;
  /** Requests taken and not yet returned. */
  readonly inFlight: number;
  /** The position to go on from, in the form of SET_VRING_BASE. */
  readonly base: number;

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

  /** Shows the driver what was returned. Returns whether it wants to be told. */
  publish(): boolean;

  /** Asks the driver not to tell of new requests. A hint; it may do so all the same. */
  suppress(): void;

  /** Asks the driver to tell of new requests. Returns whether some came in before it could know. */
  arm(): boolean;
}
