/**
 * Requests of a ring on their way to a handler and back.
 *
 * @module
 */

import type { Looker } from "../../ffi/reactor.ts";
import type { Endianness } from "../protocol/struct.ts";
import type { Chain } from "../virtqueue/chain.ts";
import type { Ring } from "../virtqueue/ring.ts";
import { LATER, type Queue, type QueueHandler } from "./device.ts";
import { LatencySampler } from "./latency_sampler.ts";
import type { RingToWork } from "./vring_context.ts";

/** Requests handled before other rings get their turn. */
const BATCH = 128;
/**
 * While a batch takes long, the driver is shown in between what was returned: it then works on that while the device goes
 * on. Fewer notifications than that cost the driver time, more cost us. How often the clock is read is bounded by bytes, as
 * reading it takes half as long as the smallest request.
 */
const SHOW_AFTER = 0.01; // ms
const BYTES_PER_CHECK = 32768;

/** Works on a ring: by a handler ({@link HandledRing}) or with an owner (`OwnedRing`). */
export interface RingWork extends Looker {
  /** The ring runs. */
  handOut(): void;
  /** The ring does not run any more, or not for a while. */
  takeBack(): void;
  /** There may be chains again where there were none before. */
  refresh(): void;
  /** What could not be shown to the driver is shown when the ring is looked at next. */
  keepHidden(): void;
  /** Requests whose handlers still have to finish. */
  readonly pending: number;
  /** A promise of {@link pending} having come to 0, if it is not. */
  idled(): Promise<void> | undefined;
  /** The session is over: nothing may be touched. */
  abandon(): void;
}

/** Marks of {@link Chain.turn}: a request that is complete, one whose handler runs, and one that waits for {@link Queue.complete}. */
const COMPLETED = -1;
const HANDLED = -2;
const DEFERRED = -3;

/** Calls a handler for each request. */
export class HandledRing implements RingWork, Queue {
  readonly #vring: RingToWork;
  readonly #handler: QueueHandler;
  readonly #sampler: LatencySampler;
  /** Requests of this batch that will be returned later. */
  #deferred = 0;
  /** How many requests come before the next one that is timed. */
  #untilSample = 0;
  #flushing = false;
  /** Whether chains were completed that the driver has not been shown. */
  #hidden = false;
  #pending = 0;
  readonly #idlers: (() => void)[] = [];

  /** Nothing is under way yet. */
  constructor(vring: RingToWork, handler: QueueHandler) {
    this.#vring = vring;
    this.#handler = handler;
    this.#sampler = new LatencySampler(vring.counters);
  }

  get index(): number {
    return this.#vring.index;
  }

  get size(): number {
    return this.#vring.size;
  }

  get features(): bigint {
    return this.#vring.features;
  }

  get endianness(): Endianness {
    return this.#vring.endianness;
  }

  get pending(): number {
    return this.#pending;
  }

  handOut(): void {}
  refresh(): void {}
  abandon(): void {}

  takeBack(): void {
    this.#showHidden();
  }

  keepHidden(): void {
    this.#hidden = true;
  }

  idled(): Promise<void> | undefined {
    if (this.#pending === 0) return undefined;
    return this.#vring.reactor.promise((resolve) => this.#idlers.push(resolve));
  }

  /** Takes and handles requests. Returns whether there were any. */
  look(): boolean {
    const vring = this.#vring;
    const ring = vring.ring;
    if (ring === undefined || !vring.running) return false;
    const { requests } = vring;
    if (vring.waits || requests.left <= 0 || !ring.available()) return this.#showHidden();
    ring.suppress();
    let taken = 0;
    let readable = 0;
    let written = 0;
    this.#deferred = 0;
    let sample = this.#untilSample;
    // Whoever sleeps after its work had better not be done with it before the driver is awake.
    const { sleeps } = vring.reactor;
    let broken: unknown;
    try {
      for (let bytes = 0, shown = 0; taken < BATCH && requests.left > 0;) {
        const chain = ring.pop();
        if (chain === null) break;
        if (sleeps && taken > 0) vring.show(ring);
        const { byteLength } = chain.readable;
        readable += byteLength;
        bytes += byteLength + chain.writable.byteLength;
        if (taken++ === sample) {
          written += this.#handleTimed(ring, chain);
          sample += this.#sampler.gap;
        } else {
          written += this.#handle(ring, chain);
        }
        if (bytes < BYTES_PER_CHECK) continue;
        bytes = 0;
        const now = performance.now();
        if (shown > 0 && now - shown < SHOW_AFTER) continue;
        if (shown > 0) vring.show(ring);
        shown = now;
      }
    } catch (error) {
      broken = error;
    }
    this.#untilSample = sample - taken;
    vring.counters.take(taken, readable);
    vring.counters.giveBack(taken - this.#deferred, written);
    // What came before a mistake is the driver's before it is told.
    this.#show(ring);
    if (broken !== undefined) vring.failed(broken);
    return true;
  }

  /** Asks for kicks. Returns true when something came in meanwhile. */
  idle(): boolean {
    const vring = this.#vring;
    if (this.#hidden) return true;
    return vring.running && !vring.waits && vring.requests.left > 0 && vring.ring !== undefined &&
      vring.ring.arm();
  }

  #show(ring: Ring): void {
    this.#hidden = false;
    this.#vring.show(ring);
  }

  /** Shows what was completed apart from a batch. Returns whether there was anything. */
  #showHidden(): boolean {
    const { ring } = this.#vring;
    if (!this.#hidden || ring === undefined) return false;
    this.#show(ring);
    return true;
  }

  /** {@link #handle}, and how long it takes. */
  #handleTimed(ring: Ring, chain: Chain): number {
    const before = this.#deferred;
    chain.since = this.#sampler.begin();
    const written = this.#handle(ring, chain);
    if (chain.since !== 0 && this.#deferred === before) this.#time(chain);
    return written;
  }

  /** Handles a request. Returns the bytes that it was returned with; 0 when that will be later. */
  #handle(ring: Ring, chain: Chain): number {
    let result: unknown;
    chain.turn = HANDLED;
    try {
      result = this.#handler(chain, this);
    } catch (error) {
      this.#vring.requestFailed(error);
    }
    if (result === LATER && chain.turn === HANDLED) {
      chain.turn = DEFERRED;
      this.#begin(chain);
      this.#deferred++;
      return 0;
    }
    if (result instanceof Promise) {
      this.#completeLater(chain, result);
      this.#deferred++;
      return 0;
    }
    const { written } = chain;
    ring.push(chain);
    return written;
  }

  /** A request that is timed is returned. */
  #time(chain: Chain): void {
    this.#sampler.end(chain.since);
    chain.since = 0;
  }

  /** {@link Queue.complete}: a request is complete whose handler has returned {@link LATER}. */
  complete(chain: Chain): void {
    const deferred = chain.turn === DEFERRED;
    chain.turn = COMPLETED;
    if (!deferred) return;
    const ring = this.#settle(chain);
    if (ring === undefined) return;
    if (this.#vring.running) {
      this.#hidden = true;
      this.#vring.reactor.wake(this);
    } else {
      this.#show(ring);
      this.#vring.settled();
    }
  }

  #begin(chain: Chain): void {
    chain.pin();
    this.#pending++;
    this.#vring.requests.begin();
  }

  /** The device has done with a request. Returns the ring that it is returned to, unless the session is over. */
  #settle(chain: Chain): Ring | undefined {
    chain.unpin();
    this.#vring.requests.end();
    if (--this.#pending === 0) { for (const idle of this.#idlers.splice(0)) idle(); }
    const { ring, counters } = this.#vring;
    if (chain.since !== 0) this.#time(chain);
    if (ring === undefined) {
      counters.drop(1);
      return undefined;
    }
    counters.giveBack(1, chain.written);
    ring.push(chain);
    return ring;
  }

  #completeLater(chain: Chain, promised: Promise<unknown>): void {
    const vring = this.#vring;
    const { reactor } = vring;
    this.#begin(chain);
    reactor.deferred();
    promised.catch((error) => vring.requestFailed(error)).then(() => {
      reactor.completed();
      const ring = this.#settle(chain);
      if (ring === undefined || this.#flushing) return;
      // Several requests may complete in one turn of the event loop; tell the driver once.
      this.#flushing = true;
      queueMicrotask(() => {
        this.#flushing = false;
        if (ring !== vring.ring) return;
        vring.show(ring);
        vring.settled();
      });
    });
  }
}
