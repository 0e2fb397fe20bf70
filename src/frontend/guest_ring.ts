/**
 * A ring as a front-end needs to know it, whoever drives it.
 *
 * @module
 */

import type { Endianness } from "../protocol/struct.ts";
import type { Piece } from "./shared_memory.ts";

/** Where a part of a ring is. */
export type RingPlace = Pick<Piece, "guestAddress" | "userAddress">;

/**
 * A ring that a back-end is to work on. {@link DriverQueue} is one that this process drives itself; a virtual machine
 * monitor, whose guest does that, makes one of what the guest's driver has set up.
 */
export interface GuestRing {
  /** Number of the ring in the device. */
  readonly index: number;
  /** Entries. */
  readonly size: number;
  /** Byte order of a legacy driver's ring; little-endian when left out. */
  readonly endianness?: Endianness;
  /** What SET_VRING_ADDR calls the descriptor area. */
  readonly descriptor: RingPlace;
  /** What SET_VRING_ADDR calls the available area: the driver writes it. */
  readonly available: RingPlace;
  /** What SET_VRING_ADDR calls the used area: the device writes it. */
  readonly used: RingPlace;
  /** Rings at the device; -1 for none: the device polls, or is kicked by messages (INBAND_NOTIFICATIONS). */
  readonly kick: number;
  /** Rings at the driver; -1 for none. */
  readonly call: number;
  /** Rings at the driver when the device finds the ring broken; -1 for none. */
  readonly error: number;
  /**
   * The position from which the device goes on, for SET_VRING_BASE. Asked for at each start: after a back-end has died,
   * that is the used index.
   */
  readonly base: number;
  /** In-band notifications: the device has something for the driver. */
  called?(): void;
  /** In-band notifications: the device finds the ring broken. */
  broken?(): void;
  /**
   * A back-end has gone, and another is about to take the ring over; none touches it now.
   *
   * @param recorded whether the new one finds in the in-flight buffer what the old one has taken and not returned
   * @returns whether it is to be started again: not when it is broken
   */
  resume?(recorded: boolean): boolean;
  /** The back-end has been told everything: DRIVER_OK, or again after another. */
  connected?(): void;
  /** The front-end has ended; nobody will work on the ring any more. */
  close?(reason: Error): void;
}
