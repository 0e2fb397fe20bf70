/**
 * One ring of a session: its two flags, and what the front-end says of it.
 *
 * @module
 */

import type { Reactor } from "../../ffi/reactor.ts";
import { IotlbMiss } from "../memory/iotlb.ts";
import { has, type RingFeature, ringFeatures } from "../protocol/features.ts";
import type { VringAddress } from "../protocol/payloads.ts";
import type { Endianness } from "../protocol/struct.ts";
import { BigEndianSplitRing } from "../virtqueue/big_endian_split_ring.ts";
import { PACKED_START } from "../virtqueue/packed_layout.ts";
import { PackedRing } from "../virtqueue/packed_ring.ts";
import { type Ring, RingError, type RingPlace } from "../virtqueue/ring.ts";
import { MAX_RING_SIZE } from "../virtqueue/split_layout.ts";
import { SplitRing } from "../virtqueue/split_ring.ts";
import type { RequestAccount } from "./accounts.ts";
import { after } from "./awaitable.ts";
import { type BrokenRing, ringFeatureNames } from "./broken_ring.ts";
import type { QueueHandler, QueueOwner } from "./device.ts";
import { Doorbells } from "./doorbells.ts";
import { errorText } from "./log.ts";
import { OwnedRing } from "./owned_ring.ts";
import type { RingCounters } from "./ring_counters.ts";
import { RingSite } from "./ring_site.ts";
import { HandledRing, type RingWork } from "./ring_work.ts";
import type { RingToWork, VringContext } from "./vring_context.ts";

/** Flag of SET_VRING_ADDR: writes to the used ring are logged. */
const LOG_RING = 1;

/**
 * A ring with the two independent flags of the specification ("Ring states"): *started* by SET_VRING_KICK and stopped by
 * GET_VRING_BASE, *enabled* by SET_VRING_ENABLE. It runs while both are set. A ring that is disabled is left untouched:
 * to complete requests without effect would lose a disk's data.
 */
export class Vring implements RingToWork {
  /** Number in the device. */
  readonly index: number;
  /** Where it counts. */
  readonly counters: RingCounters;
  #endianness: Endianness = "little";
  readonly #context: VringContext;
  readonly #work: RingWork;
  readonly #site: RingSite;
  readonly #doorbells: Doorbells;
  #size = 0;
  #address: VringAddress | undefined;
  /** From SET_VRING_BASE, or where it stopped; the start of a new ring otherwise. */
  #base: number | undefined;
  #enabled = false;
  #started = false;
  #broken = false;
  #missing: IotlbMiss | undefined;
  /** Whether an entry of the IOTLB under the ring itself has gone: until it is found again nothing of it is touched. */
  #displaced = false;
  /** Lets what is under way complete, for an IOTLB entry that goes away. */
  #paused = false;
  /** Started by VRING_KICK: kicks and calls are messages. A descriptor, where there is one, wins. */
  #inBand = false;
  /** Whether the ring's memory was taken away: nothing of it may be touched. */
  #lost = false;
  #ring: Ring | undefined;
  #running = false;
  #stopping: (() => void) | undefined;

  /** A ring that is stopped and disabled. */
  constructor(index: number, user: QueueHandler | QueueOwner, context: VringContext) {
    this.index = index;
    this.#context = context;
    this.counters = context.counters(index);
    this.#site = new RingSite(index, context);
    this.#work = typeof user === "function" ? new HandledRing(this, user) : new OwnedRing(this, user);
    this.#doorbells = new Doorbells(context.reactor, () => this.#kicked());
  }

  /** Entries. */
  get size(): number {
    return this.#size;
  }

  /** The features that the driver accepted. */
  get features(): bigint {
    return this.#context.features();
  }

  /** Byte order of the ring's fields, and of the requests in it. */
  get endianness(): Endianness {
    return this.#endianness;
  }

  get reactor(): Reactor {
    return this.#context.reactor;
  }

  get requests(): RequestAccount {
    return this.#context.requests;
  }

  get ring(): Ring | undefined {
    return this.#ring;
  }

  get running(): boolean {
    return this.#running;
  }

  get waits(): boolean {
    return this.#missing !== undefined || this.#paused || this.#displaced;
  }

  /** What it waits for an entry of the IOTLB for. Each time that it comes to wait this is another object. */
  get missing(): IotlbMiss | undefined {
    return this.#missing;
  }

  /** Whether SET_VRING_KICK has started it. */
  get started(): boolean {
    return this.#started;
  }

  /** Whether it is started and enabled: it runs, unless it is broken or waits for an address. */
  get active(): boolean {
    return this.#started && this.#enabled;
  }

  #accepted(feature: RingFeature): boolean {
    return has(this.features, ringFeatures[feature]);
  }

  #mustBeStopped(): void {
    if (this.#started) throw new RingError(`ring ${this.index} must be stopped`);
  }

  #kicked(): void {
    this.counters.kick();
    this.#wake();
  }

  #wake(): void {
    this.#context.reactor.wake(this.#work);
  }

  /** SET_VRING_NUM. */
  setSize(size: number): void {
    this.#mustBeStopped();
    const any = this.#accepted("RING_PACKED");
    const most = this.#context.maxRingSize;
    if (size < 1 || size > most || (!any && (size & (size - 1)) !== 0)) {
      const kind = any ? "from 1" : "a power of two";
      const limit = most < MAX_RING_SIZE ? " (limit ringSize)" : "";
      throw new RingError(`ring ${this.index}: size must be ${kind} up to ${most}${limit}, got ${size}`);
    }
    this.#size = size;
  }

  /** SET_VRING_ADDR. With a memory table present, the addresses must be in it. */
  setAddress(address: VringAddress): void {
    try {
      if (this.#context.hasMemory() && this.#size > 0) {
        if (this.#started && this.#ring !== undefined) this.#ring.bind(this.#site.find(address, this.#size));
        else this.#site.check(address, this.#size);
      }
    } catch (error) {
      // Behind an IOMMU it is known only when the ring runs.
      if (!(error instanceof IotlbMiss)) throw error;
    }
    this.#address = address;
    this.setLog();
  }

  /** Logging was switched on or off, for guest memory or for the ring itself. */
  setLog(): void {
    const ring = this.#ring;
    if (ring === undefined) return;
    ring.log = this.#context.log();
    const address = this.#address;
    const wanted = ring.log !== undefined && address !== undefined && (address.flags & LOG_RING) !== 0;
    const at = wanted ? this.#context.logAddress(address.log) : -1;
    ring.logUsed = at < 0 ? undefined : at;
  }

  /** SET_VRING_BASE. */
  setBase(base: number): void {
    this.#mustBeStopped();
    if (base > 0xffff && !this.#accepted("RING_PACKED")) {
      throw new RingError(`ring ${this.index}: base must have 16 bits, got ${base}`);
    }
    const before = this.#base;
    this.#base = base;
    if (before !== undefined && before !== base && base === this.#start) this.#context.onRewound();
  }

  /** The position in a ring that nobody has used. */
  get #start(): number {
    return this.#accepted("RING_PACKED") ? PACKED_START : 0;
  }

  /** SET_VRING_ENDIAN. */
  setEndianness(endianness: Endianness): void {
    this.#mustBeStopped();
    this.#checkEndianness(endianness);
    this.#endianness = endianness;
  }

  /** Only legacy rings have the byte order of the guest (virtio 1.4, 2.7.3). */
  #checkEndianness(endianness: Endianness): void {
    if (endianness === "little") return;
    for (const feature of ["VERSION_1", "RING_PACKED"] as const) {
      if (this.#accepted(feature)) {
        throw new RingError(`ring ${this.index} must be little-endian, as ${feature} was accepted`);
      }
    }
  }

  /** SET_VRING_ENABLE. */
  setEnabled(enabled: boolean): void {
    this.#enabled = enabled;
    if (enabled) this.#activate();
    else this.#deactivate();
  }

  /** SET_VRING_KICK: starts the ring. Takes over the descriptor; -1 to poll. */
  start(kick: number): void {
    // With a new descriptor the ring is looked at again: the old one may have rung unheard.
    this.#deactivate();
    this.#doorbells.setKick(kick);
    this.#started = true;
    this.#activate();
  }

  /** SET_VRING_CALL. Takes over the descriptor; -1 when nobody wants to be told. */
  setCall(call: number): void {
    this.#doorbells.setCall(call);
    // Something may have completed while there was no descriptor; a needless interrupt does no harm.
    if (this.#running) this.#doorbells.call();
  }

  /** SET_VRING_ERR. Takes over the descriptor; -1 when nobody wants to be told. Kept over stops. */
  setError(error: number): void {
    this.#doorbells.setError(error);
  }

  /**
   * Runs the ring if it is started, enabled and fully set up.
   *
   * @throws {RingError} when it cannot be
   */
  #activate(): void {
    if (!this.#started || !this.#enabled || this.#running || this.#broken || this.#paused) return;
    if (this.#ring === undefined) {
      if (this.#size === 0) throw new RingError(`ring ${this.index} was started before SET_VRING_NUM`);
      if (this.#address === undefined) {
        throw new RingError(`ring ${this.index} was started before SET_VRING_ADDR`);
      }
      // Features may have been set since.
      this.#checkEndianness(this.#endianness);
      const place = this.#findOrWait(this.#address);
      if (place === undefined) return;
      const Split = this.#endianness === "big" ? BigEndianSplitRing : SplitRing;
      const Format = this.#accepted("RING_PACKED") ? PackedRing : Split;
      this.#ring = new Format(this.#context.space(), this.#size, place, {
        eventIdx: this.#accepted("EVENT_IDX"),
        indirect: this.#accepted("INDIRECT_DESC"),
        inOrder: this.#accepted("IN_ORDER"),
        base: this.#base ?? this.#start,
        inflight: this.#context.inflight(this.index, this.#size),
      });
      this.setLog();
    }
    if (!this.#inBand) this.#doorbells.listen();
    this.#running = true;
    this.#doorbells.call();
    this.handOut();
    this.#wake();
    this.#context.onRunning();
  }

  #deactivate(): void {
    if (!this.#running) return;
    this.takeBack();
    this.#running = false;
    this.#doorbells.unlisten();
    this.#context.reactor.rest(this.#work);
  }

  #findOrWait(address: VringAddress): RingPlace | undefined {
    try {
      const place = this.#site.find(address, this.#size);
      this.#missing = undefined;
      this.#displaced = false;
      return place;
    } catch (error) {
      if (!(error instanceof IotlbMiss)) throw error;
      this.#wait(error);
      return undefined;
    }
  }

  #wait(miss: IotlbMiss): void {
    this.#missing = miss;
    this.#work.refresh();
    this.#context.reactor.rest(this.#work);
    this.#context.onMiss(this.index, miss);
  }

  /** The IOTLB has what the ring waits for: it goes on. */
  retry(): void {
    this.#missing = undefined;
    try {
      if (this.#ring === undefined) this.#activate();
      else if (this.#displaced) this.memoryChanged();
    } catch (error) {
      this.#break(error);
    }
    if (this.#running && this.#missing === undefined) this.#wake();
  }

  /** What the ring waits for does not exist. Nothing happens if it no longer waits in this way. */
  fail(miss: IotlbMiss, error: Error): void {
    if (this.#missing !== miss) return;
    this.#missing = undefined;
    this.#break(error);
  }

  /** Entries of the IOTLB have gone: the ring, where it lies behind them, is looked up again. */
  iotlbChanged(iova: number, size: number): void {
    const address = this.#address;
    if (this.#ring === undefined || address === undefined) return;
    if (!this.#site.touches(address, this.#size, iova, size)) return;
    this.#displaced = true;
    this.memoryChanged();
  }

  /** The memory table has changed. A ring whose parts are gone is broken. */
  memoryChanged(): void {
    if (this.#ring === undefined || this.#address === undefined || this.#lost) return;
    try {
      const place = this.#findOrWait(this.#address);
      if (place === undefined) return;
      this.#ring.bind(place);
      // What could not be shown meanwhile is shown now.
      this.#work.keepHidden();
      // It may have been waiting for an address, and has to look again whether that is there now.
      if (this.#running) this.#wake();
    } catch (error) {
      this.#lost = true;
      if (!this.#broken) this.#break(error);
    }
  }

  /** Takes nothing new until {@link resume}. Returns a promise of everything under way having completed, if there is any. */
  quiesce(): Promise<void> | undefined {
    this.takeBack();
    this.#paused = true;
    if (this.#work.pending > 0) this.#context.onFinishing(this.index);
    return this.#work.idled();
  }

  /** Ends {@link quiesce}. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    try {
      // It may have been started, or enabled, meanwhile.
      if (this.#missing === undefined) this.#activate();
    } catch (error) {
      this.#break(error);
    }
    this.handOut();
    if (this.#running) this.#wake();
  }

  /** There may be room for a request where there was none. */
  lookAgain(): void {
    if (this.#running) this.#wake();
  }

  /** Where another process may go on, once {@link quiesce} has come to its end; -1 for a ring that is not started. */
  handOver(): number {
    if (!this.#paused) return -1;
    this.takeBack();
    if (this.#ring !== undefined) this.show(this.#ring);
    return this.#started ? this.#ring?.base ?? this.#base ?? this.#start : -1;
  }

  /** Lends the ring to its owner, if it has one and runs. */
  handOut(): void {
    if (this.#running && !this.#paused) this.#work.handOut();
  }

  /** Takes the ring back from its owner, with the chains that it still holds. */
  takeBack(): void {
    this.#work.takeBack();
  }

  /** VRING_KICK: like SET_VRING_KICK without a descriptor, but rung by messages. */
  kickInBand(): void {
    if (!this.#started) {
      this.#started = true;
      this.#inBand = true;
      this.#activate();
    }
    this.#kicked();
  }

  show(ring: Ring): void {
    if (this.#lost || this.#displaced) return;
    const wanted = ring.publish();
    if (ring.log !== undefined) this.#context.logged();
    if (!wanted) return;
    if (!this.#doorbells.call()) {
      if (!this.#inBand) return;
      this.#context.notifyInBand(this.index, "VRING_CALL");
    }
    this.counters.notify();
  }

  failed(error: unknown): void {
    if (error instanceof IotlbMiss) this.#wait(error);
    else this.#break(error);
  }

  requestFailed(error: unknown): void {
    this.#context.onRequestError(this.index, error);
  }

  #break(error: unknown): void {
    this.#broken = true;
    // As it is now: what its owner holds is about to be taken back.
    const dump = this.#dump(error);
    this.#deactivate();
    // Whoever is told by the descriptor may ask for the status at once.
    after(this.#context.onBroken(this.index, error, dump), () => {
      if (!this.#broken || this.#doorbells.error() || !this.#inBand) return;
      this.#context.notifyInBand(this.index, "VRING_ERR");
    });
  }

  /** What is told of the ring, now that an error has broken it. */
  #dump(error: unknown): BrokenRing {
    const { rule, descriptor } = error instanceof RingError ? error : {};
    const hex = (address: bigint): string => `0x${address.toString(16)}`;
    const { features } = this;
    const ring = this.#ring;
    const address = this.#address;
    return {
      ring: this.index,
      reason: errorText(error),
      rule,
      size: this.#size,
      endianness: this.#endianness,
      addresses: address && {
        descriptor: hex(address.descriptor),
        available: hex(address.available),
        used: hex(address.used),
      },
      base: ring?.base ?? this.#base,
      features: hex(features),
      featureNames: ringFeatureNames(features),
      state: this.#lost || this.#displaced ? undefined : ring?.dump(descriptor),
    };
  }

  /**
   * GET_VRING_BASE: takes nothing new, waits for what is in flight, closes the kick descriptor.
   *
   * @returns the position to go on from
   */
  stop(): number | Promise<number> {
    this.#deactivate();
    this.#doorbells.dropKick();
    if (this.#work.pending > 0) this.#context.onFinishing(this.index);
    if (this.#ring === undefined || this.#ring.inFlight === 0) return this.#finish();
    return this.reactor.promise((resolve) => this.#stopping = () => resolve(this.#finish()));
  }

  settled(): void {
    if (this.#stopping === undefined || this.#ring === undefined || this.#ring.inFlight > 0) return;
    const finish = this.#stopping;
    this.#stopping = undefined;
    finish();
  }

  #finish(): number {
    const base = this.#ring?.base ?? this.#base ?? this.#start;
    this.#base = base;
    this.#ring = undefined;
    this.#site.leave();
    this.#started = false;
    this.#broken =
      this.#lost =
      this.#inBand =
      this.#displaced =
        false;
    this.#missing = undefined;
    return base;
  }

  /** Forgets size, addresses, byte order and position, after {@link stop}. The call and error descriptors stay. */
  reset(): void {
    this.#size = 0;
    this.#address = undefined;
    this.#base = undefined;
    this.#enabled = false;
    this.#endianness = "little";
  }

  /**
   * The session is over: lets go of everything without touching the ring again.
   *
   * @returns a promise while handlers still have requests; it resolves when the last has finished
   */
  close(): Promise<void> | undefined {
    this.#work.abandon();
    // Nobody is there any more for a stop that waits: it has no end, and must not keep the reactor.
    if (this.#stopping !== undefined) this.reactor.completed();
    this.#stopping = undefined;
    this.#deactivate();
    this.#started = false;
    this.#missing = undefined;
    this.#ring = undefined;
    this.#site.leave();
    this.#doorbells.close();
    return this.#work.idled();
  }
}
