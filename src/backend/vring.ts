/**
 * One ring of a session: its two flags, its descriptors, and the work on it.
 *
 * @module
 */

import { consume, signal } from "../../ffi/eventfd.ts";
import { close, fileStatus, setNonblocking } from "../../ffi/fd.ts";
import type { Collage } from "../../ffi/mapping.ts";
import type { Looker, Reactor } from "../../ffi/reactor.ts";
import type { AddressSpace } from "../memory/address_space.ts";
import type { DirtyLog } from "../memory/dirty_log.ts";
import { Access, IotlbMiss } from "../memory/iotlb.ts";
import { FieldError } from "../protocol/error.ts";
import { has, type RingFeature, ringFeatures } from "../protocol/features.ts";
import type { VringAddress } from "../protocol/payloads.ts";
import type { Endianness } from "../protocol/struct.ts";
import { BigEndianSplitRing } from "../virtqueue/big_endian_split_ring.ts";
import type { Chain } from "../virtqueue/chain.ts";
import { type Ring, RingError, type RingPart, type RingPlace } from "../virtqueue/ring.ts";
import { MAX_RING_SIZE, splitRingSizes } from "../virtqueue/split_layout.ts";
import type { InflightRegion } from "../virtqueue/inflight.ts";
import { PACKED_START, packedRingSizes } from "../virtqueue/packed_layout.ts";
import { PackedRing } from "../virtqueue/packed_ring.ts";
import { SplitRing } from "../virtqueue/split_ring.ts";
import { LATER, type OwnedQueue, type QueueHandler, type QueueOwner } from "./device.ts";

/** Requests handled before other rings get their turn. */
const BATCH = 128;
/** Turns are counted in numbers that need no allocation. */
const TURNS = 0x3fff_ffff;
/** The turn of a chain that its owner has completed. */
const COMPLETED = -1;
/** The same of one whose handler runs, and of one whose handler has returned {@link LATER}. */
const HANDLED = -2;
const DEFERRED = -3;
/**
 * While a batch takes long, the driver is shown in between what was returned: it then works on that while the device goes
 * on. Fewer notifications than that cost the driver time, more cost us. How often the clock is read is bounded by bytes, as
 * reading it takes half as long as the smallest request.
 */
const SHOW_AFTER = 0.01; // ms
const BYTES_PER_CHECK = 32768;
/** Flag of SET_VRING_ADDR: writes to the used ring are logged. */
const LOG_RING = 1;
/** How often a ring without a kick descriptor is looked at, ms. */
const POLL_INTERVAL = 1;

/** Where a part of a ring is. The ring unmaps what was mapped for it. */
export interface VringPart extends RingPart {
  /** Scattered pages, mapped once more in a row. */
  readonly collage?: Collage;
}

/** Where a ring is. */
interface VringPlace extends RingPlace {
  readonly descriptor: VringPart;
  readonly available: VringPart;
  readonly used: VringPart;
}

/** What a ring needs of its session. */
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
  /** The features that the driver accepted. */
  features(): bigint;
  /** A handler failed; the request was completed all the same. */
  onRequestError(vring: Vring, error: unknown): void;
  /** A ring has begun to run: the front-end can be told something. */
  onRunning(): void;
  /** A ring that was used is to begin at its start: a driver begins anew. */
  onRewound(): void;
  /** An address is missing in the IOTLB. The ring waits for {@link Vring.retry}, or for {@link Vring.fail}. */
  onMiss(vring: Vring, miss: IotlbMiss): void;
  /** Where a running ring records requests in flight; `undefined` when it does not. */
  inflight(vring: Vring): InflightRegion | undefined;
  /** Where to mark what is written to guest memory, while that is asked for. */
  log(): DirtyLog | undefined;
  /** Something may have been marked. */
  logged(): void;
  /** The guest address behind the `log` field of SET_VRING_ADDR; -1 when it has none. */
  logAddress(address: bigint): number;
  /** Notifications as messages on the back-end channel, where they were negotiated (INBAND_NOTIFICATIONS). */
  notifyInBand(vring: Vring, message: "VRING_CALL" | "VRING_ERR"): void;
  /** The driver broke the ring; it stands still until it is set up anew. */
  onBroken(vring: Vring, error: unknown): void;
}

/**
 * A ring with the two independent flags of the specification ("Ring states"): *started* by SET_VRING_KICK and stopped by
 * GET_VRING_BASE, *enabled* by SET_VRING_ENABLE. It runs while both are set. A ring that is disabled is left untouched:
 * to complete requests without effect would lose a disk's data.
 */
export class Vring implements OwnedQueue, Looker {
  /** Number in the device. */
  readonly index: number;
  #endianness: Endianness = "little";
  readonly #context: VringContext;
  readonly #handler: QueueHandler;
  readonly #owner: QueueOwner | undefined;
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
  readonly #idlers: (() => void)[] = [];
  /** Started by VRING_KICK: kicks and calls are messages. A descriptor, where there is one, wins. */
  #inBand = false;
  /** Whether the ring's memory was taken away: nothing of it may be touched. */
  #lost = false;
  #ring: Ring | undefined;
  #place: VringPlace | undefined;
  #running = false;
  #stopping: (() => void) | undefined;
  #kick = -1;
  #call = -1;
  #error = -1;
  #pollTimer: ReturnType<typeof setInterval> | undefined;
  #flushing = false;
  /** Requests whose handlers still have to finish. */
  #pending = 0;
  #drained: () => void = () => {};
  /** The ring, while its owner has it. */
  #handed: Ring | undefined;
  /** Whether the owner has found no chain, and waits for one. */
  #dry = false;
  /** Whether the owner wants to be called again. */
  #more = false;
  /** Whether chains were completed that the driver has not been shown. */
  #hidden = false;
  /** Chains taken and completed since the owner has the ring, and whether that was in the same order. */
  #takes = 0;
  #returns = 0;
  #ordered = true;

  /** A ring that is stopped and disabled. */
  constructor(index: number, user: QueueHandler | QueueOwner, context: VringContext) {
    this.index = index;
    this.#handler = typeof user === "function" ? user : () => {};
    this.#owner = typeof user === "function" ? undefined : user;
    this.#context = context;
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

  /** SET_VRING_NUM. */
  setSize(size: number): void {
    this.#mustBeStopped();
    const any = this.#accepted("RING_PACKED");
    if (size < 1 || size > MAX_RING_SIZE || (!any && (size & (size - 1)) !== 0)) {
      const kind = any ? "from 1" : "a power of two";
      throw new RingError(`ring ${this.index}: size must be ${kind} up to ${MAX_RING_SIZE}, got ${size}`);
    }
    this.#size = size;
  }

  /** SET_VRING_ADDR. With a memory table present, the addresses must be in it. */
  setAddress(address: VringAddress): void {
    try {
      if (this.#context.hasMemory() && this.#size > 0) {
        const place = this.#resolve(address);
        if (this.#started && this.#ring !== undefined) this.#ring.bind(this.#adopt(place));
        else this.#release(place);
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
    if (enabled) this.activate();
    else this.#deactivate();
  }

  /** SET_VRING_KICK: starts the ring. Takes over the descriptor; -1 to poll. */
  start(kick: number): void {
    // With a new descriptor the ring is looked at again: the old one may have rung unheard.
    this.#deactivate();
    this.#dropKick();
    this.#kick = kick;
    if (kick >= 0) {
      const { kind } = fileStatus(kick);
      if (["file", "directory", "block device"].includes(kind)) {
        throw new FieldError(
          "kick descriptor",
          "one that can be waited for, such as an eventfd",
          `a ${kind}`,
        );
      }
      setNonblocking(kick);
    }
    this.#started = true;
    this.activate();
  }

  /** SET_VRING_CALL. Takes over the descriptor; -1 when nobody wants to be told. */
  setCall(call: number): void {
    if (this.#call >= 0) close(this.#call);
    this.#call = call;
    if (call < 0) return;
    setNonblocking(call);
    // Something may have completed while there was no descriptor; a needless interrupt does no harm.
    if (this.#running) signal(call);
  }

  /** SET_VRING_ERR. Takes over the descriptor; -1 when nobody wants to be told. Kept over stops. */
  setError(error: number): void {
    if (this.#error >= 0) close(this.#error);
    this.#error = error;
    if (error >= 0) setNonblocking(error);
  }

  #part(name: string, address: bigint, length: number, access: number): VringPart {
    const part = this.#context.locate(address, length, access);
    if (part === undefined && !this.#context.hasMemory()) {
      throw new RingError(
        `ring ${this.index}: the front-end has shared no guest memory (in QEMU, it needs share=on)`,
      );
    }
    if (part === undefined) {
      const range = `0x${address.toString(16)}+${length}`;
      throw new RingError(
        `ring ${this.index}: ${name} ${range} is not within one region of the memory table`,
      );
    }
    return part;
  }

  /** Bytes of each part. */
  get #bytes(): { descriptor: number; available: number; used: number } {
    return this.#accepted("RING_PACKED")
      ? packedRingSizes(this.#size)
      : splitRingSizes(this.#size, this.#accepted("EVENT_IDX"));
  }

  #resolve(address: VringAddress): VringPlace {
    const packed = this.#accepted("RING_PACKED");
    const bytes = this.#bytes;
    const { READ, WRITE } = Access;
    const found: VringPart[] = [];
    try {
      for (
        const [name, at, length, alignment, access] of [
          ["descriptor table", address.descriptor, bytes.descriptor, 4, packed ? READ | WRITE : READ],
          ["available ring", address.available, bytes.available, packed ? 4 : 2, READ],
          ["used ring", address.used, bytes.used, 4, WRITE],
        ] as const
      ) {
        const part = this.#part(name, at, length, access);
        found.push(part);
        if ((part.region.bufferOffset + part.offset) % alignment !== 0) {
          throw new RingError(`ring ${this.index}: ${name} is not aligned in its file`);
        }
      }
    } catch (error) {
      for (const part of found) part.collage?.unmap();
      throw error;
    }
    const [descriptor, available, used] = found;
    return { descriptor, available, used };
  }

  /** Takes over what was mapped for a place, in place of what was mapped before. */
  #adopt(place: VringPlace): RingPlace {
    if (this.#place !== undefined) this.#release(this.#place);
    this.#place = place;
    return place;
  }

  #release(place: VringPlace): void {
    for (const part of [place.descriptor, place.available, place.used]) part.collage?.unmap();
  }

  /**
   * Runs the ring if it is started, enabled and fully set up.
   *
   * @throws {RingError} when it cannot be
   */
  activate(): void {
    if (!this.#started || !this.#enabled || this.#running || this.#broken) return;
    if (this.#ring === undefined) {
      if (this.#size === 0) throw new RingError(`ring ${this.index} was started before SET_VRING_NUM`);
      if (this.#address === undefined) {
        throw new RingError(`ring ${this.index} was started before SET_VRING_ADDR`);
      }
      // Features may have been set since.
      this.#checkEndianness(this.#endianness);
      const place = this.#resolveOrWait(this.#address);
      if (place === undefined) return;
      const packed = this.#accepted("RING_PACKED");
      const Split = this.#endianness === "big" ? BigEndianSplitRing : SplitRing;
      const Format = packed ? PackedRing : Split;
      this.#ring = new Format(this.#context.space(), this.#size, place, {
        eventIdx: this.#accepted("EVENT_IDX"),
        indirect: this.#accepted("INDIRECT_DESC"),
        inOrder: this.#accepted("IN_ORDER"),
        base: this.#base ?? this.#start,
        inflight: this.#context.inflight(this),
      });
      this.setLog();
    }
    this.#listen();
    this.#running = true;
    if (this.#call >= 0) signal(this.#call);
    this.handOut();
    this.#context.reactor.wake(this);
    this.#context.onRunning();
  }

  #resolveOrWait(address: VringAddress): RingPlace | undefined {
    try {
      const place = this.#resolve(address);
      this.#missing = undefined;
      this.#displaced = false;
      return this.#adopt(place);
    } catch (error) {
      if (!(error instanceof IotlbMiss)) throw error;
      this.#wait(error);
      return undefined;
    }
  }

  #wait(miss: IotlbMiss): void {
    this.#missing = miss;
    this.#dry = true;
    this.#context.reactor.rest(this);
    this.#context.onMiss(this, miss);
  }

  /** The IOTLB has what the ring waits for: it goes on. */
  retry(): void {
    this.#missing = undefined;
    try {
      if (this.#ring === undefined) this.activate();
      else if (this.#displaced) this.memoryChanged();
    } catch (error) {
      this.#break(error);
    }
    if (this.#running && this.#missing === undefined) this.#context.reactor.wake(this);
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
    const bytes = this.#bytes;
    for (const part of ["descriptor", "available", "used"] as const) {
      const at = Number(address[part]);
      if (at < iova + size && iova < at + bytes[part]) {
        this.#displaced = true;
        return this.memoryChanged();
      }
    }
  }

  /** Takes nothing new until {@link resume}. Returns a promise of everything under way having completed, if there is any. */
  quiesce(): Promise<void> | undefined {
    this.takeBack();
    this.#paused = true;
    return this.#pending === 0 ? undefined : new Promise((resolve) => this.#idlers.push(resolve));
  }

  /** Ends {@link quiesce}. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.handOut();
    if (this.#running) this.#context.reactor.wake(this);
  }

  /** VRING_KICK: like SET_VRING_KICK without a descriptor, but rung by messages. */
  kickInBand(): void {
    if (!this.#started) {
      this.#started = true;
      this.#inBand = true;
      this.activate();
    }
    this.#context.reactor.wake(this);
  }

  #deactivate(): void {
    if (!this.#running) return;
    this.takeBack();
    this.#showHidden();
    this.#running = false;
    this.#unlisten();
    this.#context.reactor.rest(this);
  }

  #listen(): void {
    const { reactor } = this.#context;
    if (this.#inBand) return;
    if (this.#kick < 0) {
      this.#pollTimer = setInterval(() => reactor.wake(this), POLL_INTERVAL);
      return;
    }
    reactor.watch(this.#kick, () => {
      if (consume(this.#kick) === "gone") {
        // Nobody can ring any more, but there may be requests all the same.
        this.#dropKick();
        this.#listen();
      }
      reactor.wake(this);
    });
  }

  #unlisten(): void {
    if (this.#kick >= 0) this.#context.reactor.unwatch(this.#kick);
    clearInterval(this.#pollTimer);
    this.#pollTimer = undefined;
  }

  #dropKick(): void {
    this.#unlisten();
    if (this.#kick >= 0) close(this.#kick);
    this.#kick = -1;
  }

  /** The memory table has changed. A ring whose parts are gone is broken. */
  memoryChanged(): void {
    if (this.#ring === undefined || this.#address === undefined || this.#lost) return;
    try {
      const place = this.#resolveOrWait(this.#address);
      if (place === undefined) return;
      this.#ring.bind(place);
      // What could not be shown meanwhile is shown now.
      this.#hidden = true;
      // It may have been waiting for an address, and has to look again whether that is there now.
      if (this.#running) this.#context.reactor.wake(this);
    } catch (error) {
      this.#lost = true;
      if (!this.#broken) this.#break(error);
    }
  }

  /** Takes and handles requests. Returns whether there were any. */
  look(): boolean {
    const ring = this.#ring;
    if (this.#owner !== undefined) return this.#lookOwned(this.#owner);
    if (ring === undefined || !this.#running) return false;
    if (this.#waits || !ring.available()) return this.#showHidden();
    ring.suppress();
    try {
      for (let n = 0, bytes = 0, shown = 0; n < BATCH; n++) {
        const chain = ring.pop();
        if (chain === null) break;
        bytes += chain.readable.byteLength + chain.writable.byteLength;
        this.#handle(ring, chain);
        if (bytes < BYTES_PER_CHECK) continue;
        bytes = 0;
        const now = performance.now();
        if (shown > 0 && now - shown < SHOW_AFTER) continue;
        if (shown > 0) this.#publish(ring);
        shown = now;
      }
    } catch (error) {
      if (error instanceof IotlbMiss) this.#wait(error);
      else this.#break(error);
    }
    this.#hidden = false;
    this.#publish(ring);
    return true;
  }

  /** Shows what was completed apart from a batch. Returns whether there was anything. */
  #showHidden(): boolean {
    if (!this.#hidden || this.#ring === undefined) return false;
    this.#hidden = false;
    this.#publish(this.#ring);
    return true;
  }

  /** The same for a ring that has an owner: lets it work when there is a reason, and shows what it has completed. */
  #lookOwned(owner: QueueOwner): boolean {
    const ring = this.#handed;
    if (ring === undefined) return false;
    let worked = false;
    if (!this.#waits && (this.#more || (this.#dry && ring.available()))) {
      worked = true;
      this.#dry = this.#more = false;
      ring.suppress();
      try {
        if (owner.work?.(this) === true) this.#more = true;
      } catch (error) {
        this.#break(error);
      }
    }
    if (this.#hidden) {
      worked = true;
      this.publish();
    }
    return worked;
  }

  /** Lends the ring to its owner, if it has one and runs. */
  handOut(): void {
    const owner = this.#owner;
    if (owner === undefined || !this.#running || this.#paused || this.#handed !== undefined) return;
    this.#handed = this.#ring;
    this.#dry = true;
    this.#more = this.#hidden = false;
    this.#takes = this.#returns = 0;
    this.#ordered = true;
    try {
      owner.start?.(this);
    } catch (error) {
      this.#break(error);
    }
  }

  /** Takes the ring back from its owner, with the chains that it still holds. */
  takeBack(): void {
    const ring = this.#handed;
    if (ring === undefined) return;
    this.#dismiss();
    this.#handed = undefined;
    this.#publish(ring);
    if (ring.inFlight === 0 || (this.#ordered && ring.rewind())) return;
    for (const chain of ring.taken()) {
      // With IN_ORDER what was completed may still be waiting for one before it.
      if (chain.turn === COMPLETED) continue;
      chain.written = 0;
      ring.push(chain);
    }
    this.#publish(ring);
  }

  #dismiss(): void {
    try {
      this.#owner?.stop?.(this);
    } catch (error) {
      this.#context.onRequestError(this, error);
    }
  }

  /** {@link OwnedQueue.take}. */
  take(): Chain | null {
    const ring = this.#handed;
    if (ring === undefined || this.#waits) return null;
    try {
      const chain = ring.pop();
      if (chain !== null) {
        chain.turn = this.#takes;
        this.#takes = (this.#takes + 1) & TURNS;
        return chain;
      }
    } catch (error) {
      if (error instanceof IotlbMiss) this.#wait(error);
      else this.#break(error);
      return null;
    }
    if (!this.#dry) {
      this.#dry = true;
      this.#context.reactor.wake(this);
    }
    return null;
  }

  /** {@link Queue.complete} and {@link OwnedQueue.complete}. */
  complete(chain: Chain): void {
    if (this.#owner === undefined) return this.#completeNow(chain);
    const ring = this.#handed;
    if (ring === undefined || !chain.inFlight || chain.turn === COMPLETED) return;
    if (chain.turn !== this.#returns) this.#ordered = false;
    chain.turn = COMPLETED;
    this.#returns = (this.#returns + 1) & TURNS;
    ring.push(chain);
    if (this.#hidden) return;
    this.#hidden = true;
    this.#context.reactor.wake(this);
  }

  /** {@link OwnedQueue.publish}. */
  publish(): void {
    this.#hidden = false;
    if (this.#handed !== undefined) this.#publish(this.#handed);
  }

  /** {@link OwnedQueue.wake}. */
  wake(): void {
    if (this.#handed === undefined) return;
    this.#more = true;
    this.#context.reactor.wake(this);
  }

  /** Asks for kicks. Returns true when something came in meanwhile. */
  idle(): boolean {
    if (this.#owner !== undefined) {
      const ring = this.#handed;
      if (ring === undefined || this.#waits) return false;
      return this.#hidden || this.#more || (this.#dry && ring.arm());
    }
    if (this.#hidden) return true;
    return this.#running && !this.#waits && this.#ring !== undefined && this.#ring.arm();
  }

  /** Whether it must not be touched for now, because of the IOTLB. */
  get #waits(): boolean {
    return this.#missing !== undefined || this.#paused || this.#displaced;
  }

  #handle(ring: Ring, chain: Chain): void {
    let result: unknown;
    chain.turn = HANDLED;
    try {
      result = this.#handler(chain, this);
    } catch (error) {
      this.#context.onRequestError(this, error);
    }
    if (result === LATER && chain.turn === HANDLED) {
      chain.turn = DEFERRED;
      chain.pin();
      this.#pending++;
    } else if (result instanceof Promise) {
      this.#completeLater(chain, result);
    } else {
      ring.push(chain);
    }
  }

  /** A request is complete whose handler has returned {@link LATER}. */
  #completeNow(chain: Chain): void {
    const deferred = chain.turn === DEFERRED;
    chain.turn = COMPLETED;
    if (!deferred) return;
    const ring = this.#settled(chain);
    if (ring === undefined) return;
    if (this.#running) {
      this.#hidden = true;
      this.#context.reactor.wake(this);
    } else {
      this.#publish(ring);
      this.#stopped();
    }
  }

  /** The device has done with a request. Returns the ring that it is returned to, unless the session is over. */
  #settled(chain: Chain): Ring | undefined {
    chain.unpin();
    if (--this.#pending === 0) { for (const idle of this.#idlers.splice(0)) idle(); }
    const ring = this.#ring;
    if (ring !== undefined) ring.push(chain);
    else if (this.#pending === 0) this.#drained();
    return ring;
  }

  #completeLater(chain: Chain, pending: Promise<unknown>): void {
    chain.pin();
    this.#pending++;
    const { reactor } = this.#context;
    reactor.deferred();
    pending.catch((error) => this.#context.onRequestError(this, error)).then(() => {
      reactor.completed();
      const ring = this.#settled(chain);
      if (ring === undefined || this.#flushing) return;
      // Several requests may complete in one turn of the event loop; tell the driver once.
      this.#flushing = true;
      queueMicrotask(() => {
        this.#flushing = false;
        if (ring !== this.#ring) return;
        this.#publish(ring);
        this.#stopped();
      });
    });
  }

  #publish(ring: Ring): void {
    if (this.#lost || this.#displaced) return;
    const wanted = ring.publish();
    if (ring.log !== undefined) this.#context.logged();
    if (!wanted) return;
    if (this.#call >= 0) signal(this.#call);
    else if (this.#inBand) this.#context.notifyInBand(this, "VRING_CALL");
  }

  #break(error: unknown): void {
    this.#broken = true;
    this.#deactivate();
    if (this.#error >= 0) signal(this.#error);
    else if (this.#inBand) this.#context.notifyInBand(this, "VRING_ERR");
    this.#context.onBroken(this, error);
  }

  /**
   * GET_VRING_BASE: takes nothing new, waits for what is in flight, closes the kick descriptor.
   *
   * @returns the position to go on from
   */
  stop(): number | Promise<number> {
    this.#deactivate();
    this.#dropKick();
    if (this.#ring === undefined || this.#ring.inFlight === 0) return this.#finish();
    return new Promise((resolve) => this.#stopping = () => resolve(this.#finish()));
  }

  #stopped(): void {
    if (this.#stopping === undefined || this.#ring === undefined || this.#ring.inFlight > 0) return;
    const finish = this.#stopping;
    this.#stopping = undefined;
    finish();
  }

  #finish(): number {
    const base = this.#ring?.base ?? this.#base ?? this.#start;
    this.#base = base;
    this.#ring = undefined;
    if (this.#place !== undefined) this.#release(this.#place);
    this.#place = undefined;
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
    const handed = this.#handed !== undefined;
    this.#handed = undefined;
    if (handed) this.#dismiss();
    this.#deactivate();
    this.#dropKick();
    this.#missing = undefined;
    this.#ring = undefined;
    if (this.#place !== undefined) this.#release(this.#place);
    this.#place = undefined;
    this.setCall(-1);
    this.setError(-1);
    return this.#pending === 0 ? undefined : new Promise((resolve) => this.#drained = resolve);
  }
}
