/**
 * What a session says to a ring.
 *
 * @module
 */

import type { IotlbMiss } from "../memory/iotlb.ts";
import type { VringAddress } from "../protocol/payloads.ts";
import type { Endianness } from "../protocol/struct.ts";
import type { Awaitable } from "./awaitable.ts";

/** A ring of this thread (`Vring`) or of another (`RemoteVring`). */
export interface VringControl {
  /** Number in the device. */
  readonly index: number;
  /** Whether SET_VRING_KICK has started it. */
  readonly started: boolean;
  /** Whether it is started and enabled: it runs, unless it is broken or waits for an address. */
  readonly active: boolean;
  /** Byte order of the ring's fields, and of the requests in it. */
  readonly endianness: Endianness;
  /** What it waits for an entry of the IOTLB for. Each time that it comes to wait this is another object. */
  readonly missing: IotlbMiss | undefined;
  /** SET_VRING_NUM. */
  setSize(size: number): Awaitable<void>;
  /** SET_VRING_ADDR. */
  setAddress(address: VringAddress): Awaitable<void>;
  /** SET_VRING_BASE. */
  setBase(base: number): Awaitable<void>;
  /** SET_VRING_ENDIAN. */
  setEndianness(endianness: Endianness): Awaitable<void>;
  /** SET_VRING_ENABLE. */
  setEnabled(enabled: boolean): Awaitable<void>;
  /** SET_VRING_KICK: starts the ring. Takes over the descriptor; -1 to poll. */
  start(kick: number): Awaitable<void>;
  /** SET_VRING_CALL. Takes over the descriptor; -1 when nobody wants to be told. */
  setCall(call: number): Awaitable<void>;
  /** SET_VRING_ERR. Takes over the descriptor; -1 when nobody wants to be told. */
  setError(error: number): Awaitable<void>;
  /** VRING_KICK. */
  kickInBand(): Awaitable<void>;
  /** What the ring waits for does not exist. Nothing happens if it no longer waits in this way. */
  fail(miss: IotlbMiss, error: Error): Awaitable<void>;
  /**
   * GET_VRING_BASE: takes nothing new, waits for what is in flight, closes the kick descriptor. Then nothing touches the ring.
   *
   * @returns the position to go on from
   */
  stop(): Awaitable<number>;
}
