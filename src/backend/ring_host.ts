/**
 * What rings need of their session, in the thread that runs them.
 *
 * @module
 */

import type { Reactor } from "../../ffi/reactor.ts";
import { GuestMemory } from "../memory/guest_memory.ts";
import { Iotlb, type IotlbEntry, IotlbMiss } from "../memory/iotlb.ts";
import { MemoryError } from "../memory/region.ts";
import { Segments } from "../memory/segments.ts";
import {
  has,
  type ProtocolFeature,
  protocolFeatures,
  type RingFeature,
  ringFeatures,
} from "../protocol/features.ts";
import type { Inflight } from "../protocol/payloads.ts";
import { all, type Awaitable } from "./awaitable.ts";
import type { DeviceBehaviour } from "./device.ts";
import { MemoryAccount, RequestAccount } from "./accounts.ts";
import type { Limits } from "./limits.ts";
import { InflightBuffer } from "./inflight_buffer.ts";
import { MigrationLog } from "./migration_log.ts";
import type { RingCounters } from "./ring_counters.ts";
import { Vring } from "./vring.ts";
import type { VringContext, VringPart } from "./vring_context.ts";

/** Guest addresses are below this: numbers hold them exactly. */
const END = 1n << 53n;

/**
 * What a session says to everyone who runs some of its rings: in its own thread, and in others, where each has a device of
 * its own. A promise is resolved when it holds there.
 */
export interface RingHosting {
  /** SET_FEATURES. */
  setFeatures(features: bigint): Awaitable<void>;
  /** SET_PROTOCOL_FEATURES. */
  setProtocol(features: bigint): Awaitable<void>;
  /** SET_LOG_BASE. The descriptor stays the caller's. */
  openLog(fd: number, offset: bigint, size: bigint): Awaitable<void>;
  /** SET_LOG_FD. The descriptor stays the caller's. */
  setLogEvent(fd: number): Awaitable<void>;
  /** SET_INFLIGHT_FD. The descriptor stays the caller's. */
  openInflight(inflight: Inflight, fd: number): Awaitable<void>;
  /** A new entry of the IOTLB. What it takes away goes only when no request uses it. */
  updateIotlb(entry: IotlbEntry): Awaitable<void>;
  /** Entries of the IOTLB go, once no request uses them. */
  invalidateIotlb(iova: number, size: number): Awaitable<void>;
  /** All entries go; no ring is started. */
  clearIotlb(): Awaitable<void>;
  /** SET_CONFIG. */
  writeConfig(offset: number, data: Uint8Array, migration: boolean): Awaitable<void>;
  /** A driver begins anew with the features that it has accepted already; no ring runs. */
  rewind(): Awaitable<void>;
  /** RESET_DEVICE, when all rings have stopped. */
  reset(): Awaitable<void>;
  /**
   * Lets what is under way complete, takes nothing new and touches no ring until {@link thaw}: another process may go on with
   * them. Rings that are started meanwhile wait, too.
   */
  freeze(): Awaitable<readonly RingPosition[]>;
  /** Ends {@link freeze}. */
  thaw(): Awaitable<void>;
}

/** Where a started ring stands. */
export interface RingPosition {
  /** Number in the device. */
  readonly index: number;
  /** Position to go on from, in the form of SET_VRING_BASE. */
  readonly num: number;
}

/** What happens, for the session. */
export interface RingEvents extends
  Pick<
    VringContext,
    "onRequestError" | "onRunning" | "onRewound" | "onMiss" | "notifyInBand" | "onBroken"
  > {
  /** Memory that the front-end shares has gone. There are zeros in its place; nothing that was read of it counts. */
  onMemoryLost(error: Error): void;
}

/**
 * A ring's part in pages that do not follow each other, as Linux allocates rings behind an IOMMU. What the ring itself
 * writes there cannot be logged as one range, so it counts as outside the log.
 */
function scattered(segments: Segments, onLost: () => void): VringPart | undefined {
  const joined = segments.collage();
  if (joined === undefined) return undefined;
  const { collage, offset } = joined;
  try {
    collage.watch(onLost);
  } catch (error) {
    collage.unmap();
    throw error;
  }
  const region = { buffer: collage.buffer, bufferOffset: 0, guestAddress: Number.MAX_SAFE_INTEGER };
  return { region, offset, collage };
}

/** Rings of a session, and what they need of it. */
export class RingHost implements RingHosting {
  /** What the device does for this front-end. */
  readonly behaviour: DeviceBehaviour;
  /** Guest memory. */
  readonly memory: GuestMemory;
  /** What is mapped. */
  readonly account: MemoryAccount;
  /** The rings that run here. */
  readonly vrings: readonly Vring[];
  readonly #limits: Limits;
  readonly #migrationLog = new MigrationLog();
  readonly #onLost: (error: Error) => void;
  #features = 0n;
  #protocol = 0n;
  #inflight: InflightBuffer | undefined;
  #iotlb: Iotlb | undefined;

  /**
   * @param indices which of the device's rings run here
   * @param counters where a ring counts
   */
  constructor(
    behaviour: DeviceBehaviour,
    indices: readonly number[],
    reactor: Reactor,
    events: RingEvents,
    limits: Limits,
    counters: (index: number) => RingCounters,
  ) {
    this.behaviour = behaviour;
    this.#limits = limits;
    this.memory = new GuestMemory(limits.regions);
    this.account = new MemoryAccount(limits.memory);
    this.#onLost = (error) => events.onMemoryLost(error);
    this.memory.onLost = this.#onLost;
    const context: VringContext = {
      ...events,
      onFinishing: (index) => behaviour.finishing?.(index),
      reactor,
      counters,
      space: () => this.#iommu() ?? this.memory,
      locate: (address, length, access) => this.#locate(address, length, access),
      hasMemory: () => this.memory.regions.length > 0,
      features: () => this.#features,
      inflight: (index, size) => this.#inflight?.region(index, size),
      log: () => this.accepted("LOG_ALL") ? this.#migrationLog.log : undefined,
      logged: () => this.#migrationLog.tell(),
      logAddress: (address) => this.#logAddress(address),
      maxRingSize: limits.ringSize,
      requests: new RequestAccount(limits.requests, () => {
        for (const vring of this.vrings) vring.lookAgain();
      }),
    };
    this.vrings = indices.map((index) => new Vring(index, behaviour.queues[index], context));
  }

  /** Features that the driver accepted. */
  get features(): bigint {
    return this.#features;
  }

  /** Protocol features that the front-end accepted; kept over resets. */
  get protocol(): bigint {
    return this.#protocol;
  }

  /** The entries that the front-end has given. */
  get iotlb(): Iotlb {
    return this.#iotlb ??= new Iotlb(
      this.memory,
      this.negotiated("GPA_ADDRESSES"),
      this.#limits.iotlb,
    );
  }

  /** Whether a protocol feature was negotiated. */
  negotiated(feature: ProtocolFeature): boolean {
    return has(this.#protocol, protocolFeatures[feature]);
  }

  /** Whether the driver has accepted a feature. */
  accepted(feature: RingFeature): boolean {
    return has(this.#features, ringFeatures[feature]);
  }

  setFeatures(features: bigint): void {
    const logged = this.accepted("LOG_ALL");
    this.#features = features;
    if (this.accepted("LOG_ALL") !== logged) this.#setLogs();
    this.behaviour.negotiated?.(features);
    // Without PROTOCOL_FEATURES there is no SET_VRING_ENABLE, and rings start enabled. QEMU's cryptodev-vhost-user, the only
    // front-end with crypto sessions, never sends it either.
    if (!this.accepted("PROTOCOL_FEATURES") || this.negotiated("CRYPTO_SESSION")) {
      for (const vring of this.vrings) vring.setEnabled(true);
    }
  }

  setProtocol(features: bigint): void {
    this.#protocol = features;
  }

  openLog(fd: number, offset: bigint, size: bigint): void {
    this.account.check("dirty log", Number(size));
    this.#migrationLog.open(fd, offset, size, this.#limits.log, () => this.#lost("the dirty log"));
    this.account.set("dirty log", Number(size));
    this.#setLogs();
  }

  setLogEvent(fd: number): void {
    this.#migrationLog.setEvent(fd);
  }

  openInflight(inflight: Inflight, fd: number): void {
    const bytes = Number(inflight.mmapSize);
    this.account.check("in-flight buffer", bytes);
    const packed = this.accepted("RING_PACKED");
    const onLost = (): void => this.#lost("the in-flight buffer");
    const buffer = new InflightBuffer(inflight, packed, fd, this.#limits.inflight, onLost);
    this.account.set("in-flight buffer", bytes);
    this.#inflight?.close();
    this.#inflight = buffer;
  }

  updateIotlb(entry: IotlbEntry): Awaitable<void> {
    const update = (): void => {
      this.iotlb.update(entry);
      this.#retry();
    };
    // An entry is often sent twice. One that says something else takes the old one away.
    if (!this.iotlb.contradicts(entry)) return update();
    return this.#unused(() => {
      update();
      for (const vring of this.vrings) vring.iotlbChanged(entry.iova, entry.size);
    });
  }

  invalidateIotlb(iova: number, size: number): Awaitable<void> {
    return this.#unused(() => {
      this.iotlb.invalidate(iova, size);
      for (const vring of this.vrings) vring.iotlbChanged(iova, size);
    });
  }

  clearIotlb(): void {
    this.iotlb.clear();
  }

  writeConfig(offset: number, data: Uint8Array, migration: boolean): void {
    this.behaviour.config?.write?.(offset, data, migration);
  }

  rewind(): void {
    this.behaviour.reset?.();
    this.behaviour.negotiated?.(this.#features);
  }

  reset(): void {
    for (const vring of this.vrings) vring.reset();
    this.#features = 0n;
    this.behaviour.reset?.();
  }

  freeze(): Awaitable<readonly RingPosition[]> {
    const pending = this.vrings.flatMap((vring) => vring.quiesce() ?? []);
    const positions = (): RingPosition[] =>
      this.vrings.map((vring) => ({ index: vring.index, num: vring.handOver() })).filter(({ num }) =>
        num >= 0
      );
    return pending.length === 0 ? positions() : Promise.all(pending).then(positions);
  }

  thaw(): void {
    for (const vring of this.vrings) vring.resume();
  }

  /** Changes the memory table, by a function that says whether it has. No device holds a chain meanwhile. */
  changeMemory(change: () => boolean): void {
    for (const vring of this.vrings) vring.takeBack();
    try {
      if (change()) { for (const vring of this.vrings) vring.memoryChanged(); }
    } finally {
      for (const vring of this.vrings) vring.handOut();
    }
  }

  /**
   * The session is over: lets go of all rings without touching them again.
   *
   * @returns a promise while handlers still have requests; it resolves when the last has finished
   */
  closeRings(): Awaitable<void> {
    return all(this.vrings.map((vring) => vring.close()));
  }

  /** Lets go of all memory, after {@link closeRings}; what handlers still use goes when they have finished. */
  closeMemory(): void {
    this.#migrationLog.close();
    this.#inflight?.close();
    this.memory.clear();
    this.behaviour.disconnected?.();
  }

  #lost(what: string): void {
    this.#onLost(
      new MemoryError(`${what}: the file has become shorter, or there is no memory for its pages (SIGBUS)`),
    );
  }

  #setLogs(): void {
    for (const vring of this.vrings) vring.setLog();
  }

  /** The IOTLB has a new entry: rings that wait for it go on. */
  #retry(): void {
    for (const vring of this.vrings) {
      const { missing } = vring;
      if (missing !== undefined && this.iotlb.has(missing)) vring.retry();
    }
  }

  /** Changes the IOTLB once no request uses it, and lets the rings go on. */
  #unused(change: () => void): Awaitable<void> {
    const finish = (): void => {
      change();
      for (const vring of this.vrings) vring.resume();
    };
    const pending = this.vrings.flatMap((vring) => vring.quiesce() ?? []);
    if (pending.length === 0) return finish();
    return Promise.all(pending).then(finish);
  }

  /** The IOTLB, when the driver's addresses go through it. */
  #iommu(): Iotlb | undefined {
    return this.accepted("ACCESS_PLATFORM") ? this.iotlb : undefined;
  }

  /** Where a part of a ring is (vhost-user, "Ring addresses"): its address is of the front-end, the guest or the IOMMU. */
  #locate(address: bigint, length: number, access: number): VringPart | undefined {
    const segments = new Segments();
    const at = Number(address);
    const iommu = this.#iommu();
    if (iommu !== undefined) {
      if (!iommu.resolve(segments, at, length, access)) return undefined;
      return segments.contiguous() ?? scattered(segments, () => this.#lost("pages of a ring"));
    }
    if (this.negotiated("GPA_ADDRESSES")) {
      return this.memory.append(segments, at, length) ? segments.contiguous() : undefined;
    }
    const region = this.memory.findUser(at, length);
    return region === undefined ? undefined : { region, offset: at - region.userAddress };
  }

  /** Behind an IOMMU the log's address is one of the driver's, too. */
  #logAddress(address: bigint): number {
    const iommu = this.#iommu();
    if (iommu === undefined) return address < END ? Number(address) : -1;
    const segments = new Segments();
    try {
      if (!iommu.append(segments, Number(address), 1, true)) return -1;
    } catch (error) {
      if (error instanceof IotlbMiss) return -1;
      throw error;
    }
    const place = segments.contiguous();
    return place === undefined ? -1 : place.region.guestAddress + place.offset;
  }
}
