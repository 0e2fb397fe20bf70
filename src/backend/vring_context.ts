/**
 * What a ring needs of its session.
 *
 * @module
 */

import type { Collage } from "../../ffi/mapping.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import type { AddressSpace } from "../memory/address_space.ts";
import type { DirtyLog } from "../memory/dirty_log.ts";
import type { IotlbMiss } from "../memory/iotlb.ts";
import type { InflightRegion } from "../virtqueue/inflight.ts";
import type { Ring, RingPart } from "../virtqueue/ring.ts";
import type { RequestAccount } from "./accounts.ts";
import type { Awaitable } from "./awaitable.ts";
import type { BrokenRing } from "./broken_ring.ts";
import type { Queue } from "./device.ts";
import type { RingCounters } from "./ring_counters.ts";

/** Where a part of a ring is. The ring unmaps what was mapped for it. */
export interface VringPart extends RingPart {
  /** Scattered pages, mapped once more in a row. */
  readonly collage?: Collage;
}

/** What a ring, named by its index, needs of its session. */
export interface VringContext {
  /** What the addresses in descriptors mean. */
  space(): AddressSpace;
  /**
   * Where a part of a ring is; `undefined` when it is not within one region of guest memory.
   *
   * @param access what is done there, of {@link Access}
   * @throws {IotlbMiss} when the IOTLB does not say
   */
  locate(address: bigint, length: number, access: number): VringPart | undefined;
  /** Whether there is guest memory at all. */
  hasMemory(): boolean;
  /** Waiting. */
  readonly reactor: Reactor;
  /** Where the ring counts. */
  counters(index: number): RingCounters;
  /** The features that the driver accepted. */
  features(): bigint;
  /** The most entries of a ring. */
  readonly maxRingSize: number;
  /** Requests under way in handlers, of all rings. */
  readonly requests: RequestAccount;
  /** A handler failed; the request was completed all the same. */
  onRequestError(index: number, error: unknown): void;
  /** A ring's requests are waited for. */
  onFinishing(index: number): void;
  /** A ring has begun to run: the front-end can be told something. */
  onRunning(): void;
  /** A ring that was used is to begin at its start: a driver begins anew. */
  onRewound(): void;
  /** An address is missing in the IOTLB. The ring waits for {@link Vring.retry}, or for {@link Vring.fail}. */
  onMiss(index: number, miss: IotlbMiss): void;
  /** Where a running ring of so many entries records requests in flight; `undefined` when it does not. */
  inflight(index: number, size: number): InflightRegion | undefined;
  /** Where to mark what is written to guest memory, while that is asked for. */
  log(): DirtyLog | undefined;
  /** Something may have been marked. */
  logged(): void;
  /** The guest address behind the `log` field of SET_VRING_ADDR; -1 when it has none. */
  logAddress(address: bigint): number;
  /** Notifications as messages on the back-end channel, where they were negotiated (INBAND_NOTIFICATIONS). */
  notifyInBand(index: number, message: "VRING_CALL" | "VRING_ERR"): void;
  /**
   * The driver broke the ring; it stands still until it is set up anew. Returns when the device status says so.
   *
   * @param dump what was found, where the ring's thread could look
   */
  onBroken(index: number, error: unknown, dump?: BrokenRing): Awaitable<void>;
}

/** A ring as those see it who take its requests and complete them. */
export interface RingToWork extends Omit<Queue, "complete"> {
  /** Waiting. */
  readonly reactor: Reactor;
  /** Where it counts. */
  readonly counters: RingCounters;
  /** The ring, from its first start until it stops. */
  readonly ring: Ring | undefined;
  /** Whether requests may be taken: it is started and enabled. */
  readonly running: boolean;
  /** Whether it must not be touched for now, because of the IOTLB. */
  readonly waits: boolean;
  /** Requests under way in handlers, of all rings. */
  readonly requests: RequestAccount;
  /** Shows the driver what was returned, and tells it if it wants to know. */
  show(ring: Ring): void;
  /** An address was missing, or the driver broke the ring. */
  failed(error: unknown): void;
  /** A handler failed; the request is completed all the same. */
  requestFailed(error: unknown): void;
  /** All that handlers had promised was shown. */
  settled(): void;
}
