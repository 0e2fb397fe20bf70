/**
 * Requests of a ring on their way to a handler and back.
 *
 * @module
 */

import type { Looker } from "../../ffi/reactor.ts";
import type { Chain } from "../virtqueue/chain.ts";
import type { Ring } from "../virtqueue/ring.ts";
import type { QueueHandler } from "./device.ts";
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
  /** Requests whose handlers still have to finish. */
  readonly pending: number;
  /** A promise of {@link pending} having come to 0, if it is not. */
  idled(): Promise<void> | undefined;
  /** The session is over: nothing may be touched. */
  abandon(): void;
}

/** Calls a handler for each request. */
export class HandledRing implements RingWork {
  readonly #vring: RingToWork;
  readonly #handler: QueueHandler;
  #flushing = false;
  #pending = 0;
  readonly #idlers: (() => void)[] = [];

  /** Nothing is under way yet. */
  constructor(vring: RingToWork, handler: QueueHandler) {
    this.#vring = vring;
    this.#handler = handler;
  }

  get pending(): number {
    return this.#pending;
  }

  handOut(): void {}
  takeBack(): void {}
  refresh(): void {}
  abandon(): void {}

  idled(): Promise<void> | undefined {
    return this.#pending === 0 ? undefined : new Promise((resolve) => this.#idlers.push(resolve));
  }

  /** Takes and handles requests. Returns whether there were any. */
  look(): boolean {
    const vring = this.#vring;
    const ring = vring.ring;
    if (ring === undefined || !vring.running || vring.waits || !ring.available()) return false;
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
        if (shown > 0) vring.show(ring);
        shown = now;
      }
    } catch (error) {
      // What came before that is the driver's before it is told.
      vring.show(ring);
      vring.failed(error);
      return true;
    }
    vring.show(ring);
    return true;
  }

  /** Asks for kicks. Returns true when something came in meanwhile. */
  idle(): boolean {
    const vring = this.#vring;
    return vring.running && !vring.waits && vring.ring !== undefined && vring.ring.arm();
  }

  #handle(ring: Ring, chain: Chain): void {
    let result: unknown;
    try {
      result = this.#handler(chain, this.#vring);
    } catch (error) {
      this.#vring.requestFailed(error);
    }
    if (result instanceof Promise) this.#completeLater(ring, chain, result);
    else ring.push(chain);
  }

  #completeLater(ring: Ring, chain: Chain, promised: Promise<unknown>): void {
    const vring = this.#vring;
    chain.pin();
    if (this.#pending++ === 0) vring.reactor.deferred();
    promised.catch((error) => vring.requestFailed(error)).then(() => {
      chain.unpin();
      if (--this.#pending === 0) {
        vring.reactor.completed();
        for (const idle of this.#idlers.splice(0)) idle();
      }
      if (ring !== vring.ring) return;
      ring.push(chain);
      if (this.#flushing) return;
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
