/**
 * A ring in the hands of its device.
 *
 * @module
 */

import type { Endianness } from "../protocol/struct.ts";
import type { Chain } from "../virtqueue/chain.ts";
import type { Ring } from "../virtqueue/ring.ts";
import type { OwnedQueue, QueueOwner } from "./device.ts";
import { LatencySampler } from "./latency_sampler.ts";
import type { RingWork } from "./ring_work.ts";
import type { RingToWork } from "./vring_context.ts";

/** Turns are counted in numbers that need no allocation. */
const TURNS = 0x3fff_ffff;
/** The turn of a chain that its owner has completed. */
const COMPLETED = -1;
/**
 * Completed chains that are shown to the driver at the latest, while its owner still works: the driver works on them at the
 * same time. Shown all at the end, the two would take turns.
 */
const SHOW_AFTER = 32;

/** Lends a ring to its owner while it runs, and lets the owner work when there is a reason. */
export class OwnedRing implements RingWork, OwnedQueue {
  /** Nobody waits for an owner: what it holds is taken from it. */
  readonly pending = 0;
  readonly #vring: RingToWork;
  readonly #owner: QueueOwner;
  readonly #sampler: LatencySampler;
  /** Requests to the next one that is timed, itself included. */
  #untilSample = 1;
  /** The ring, while its owner has it. */
  #handed: Ring | undefined;
  /** Whether the owner has found no chain, and waits for one. */
  #dry = false;
  /** Whether the owner wants to be called again. */
  #more = false;
  /** Whether chains were completed that the driver has not been shown; and how many. */
  #hidden = false;
  #unshown = 0;
  /** Chains taken and completed since the owner has the ring, and whether that was in the same order. */
  #takes = 0;
  #returns = 0;
  #ordered = true;
  /** Whether the owner works now. */
  #working = false;
  /** For {@link take}. */
  readonly #single: Chain[] = [];
  /** What the counters are still to be told. */
  #newTaken = 0;
  #newReadable = 0;
  #newReturned = 0;
  #newWritten = 0;

  /** The owner does not have the ring yet. */
  constructor(vring: RingToWork, owner: QueueOwner) {
    this.#vring = vring;
    this.#owner = owner;
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

  idled(): undefined {}

  keepHidden(): void {
    this.#hidden = true;
  }

  refresh(): void {
    this.#dry = true;
  }

  handOut(): void {
    if (this.#handed !== undefined) return;
    this.#handed = this.#vring.ring;
    this.#dry = true;
    this.#more = false;
    this.#takes = this.#returns = 0;
    this.#ordered = true;
    try {
      this.#owner.start?.(this);
    } catch (error) {
      this.#vring.failed(error);
    }
  }

  /** Takes the ring back from its owner, with the chains that it still holds. */
  takeBack(): void {
    const ring = this.#handed;
    if (ring === undefined) return;
    this.#dismiss();
    this.#count();
    this.#handed = undefined;
    this.#hidden = false;
    this.#unshown = 0;
    this.#vring.show(ring);
    if (ring.inFlight === 0) return;
    // With IN_ORDER what was completed may still be waiting for one before it.
    const held = ring.taken().filter((chain) => chain.turn !== COMPLETED);
    this.#vring.counters.drop(held.length);
    if (this.#ordered && ring.rewind()) return;
    for (const chain of held) {
      chain.written = 0;
      ring.push(chain);
    }
    this.#vring.show(ring);
  }

  abandon(): void {
    const ring = this.#handed;
    this.#handed = undefined;
    if (ring === undefined) return;
    this.#count();
    this.#vring.counters.drop(ring.taken().filter((chain) => chain.turn !== COMPLETED).length);
    this.#dismiss();
  }

  #dismiss(): void {
    try {
      this.#owner.stop?.(this);
    } catch (error) {
      this.#vring.requestFailed(error);
    }
  }

  /** Counts what was taken and completed since the last time: once for many requests. */
  #count(): void {
    const { counters } = this.#vring;
    if (this.#newTaken > 0) counters.take(this.#newTaken, this.#newReadable);
    if (this.#newReturned > 0) counters.giveBack(this.#newReturned, this.#newWritten);
    this.#newTaken = this.#newReadable = 0;
    this.#newReturned = this.#newWritten = 0;
  }

  /** Lets the owner work when there is a reason, and shows what it has completed. Returns whether there was any. */
  look(): boolean {
    const ring = this.#handed;
    if (ring === undefined) return false;
    let worked = false;
    if (!this.#vring.waits && (this.#more || (this.#dry && ring.available()))) {
      worked = true;
      this.#dry = this.#more = false;
      ring.suppress();
      this.#working = true;
      try {
        if (this.#owner.work?.(this) === true) this.#more = true;
      } catch (error) {
        this.#vring.failed(error);
      }
      this.#working = false;
    }
    if (this.#hidden) {
      worked = true;
      this.publish();
    } else if (worked) {
      this.#count();
    }
    return worked;
  }

  /** Asks for kicks if the owner waits for a chain. Returns true when something came in meanwhile. */
  idle(): boolean {
    const ring = this.#handed;
    if (ring === undefined || this.#vring.waits) return false;
    return this.#hidden || this.#more || (this.#dry && ring.arm());
  }

  take(): Chain | null {
    return this.takeBurst(this.#single, 0, 1) === 1 ? this.#single[0] : null;
  }

  takeBurst(into: Chain[], at: number, most: number): number {
    const ring = this.#handed;
    if (ring === undefined || this.#vring.waits) return 0;
    let count = 0;
    let readable = 0;
    let turn = this.#takes;
    let untilSample = this.#untilSample;
    let broken: unknown;
    try {
      for (; count < most; count++) {
        const chain = ring.pop();
        if (chain === null) break;
        chain.turn = turn;
        turn = (turn + 1) & TURNS;
        readable += chain.readable.byteLength;
        chain.since = 0;
        if (--untilSample === 0) {
          chain.since = this.#sampler.begin();
          untilSample = this.#sampler.gap;
        }
        into[at + count] = chain;
      }
    } catch (error) {
      broken = error;
    }
    this.#takes = turn;
    this.#untilSample = untilSample;
    this.#newTaken += count;
    this.#newReadable += readable;
    // Else it is told when this is over: after work, or when what was completed is shown.
    if (!this.#working && !this.#hidden) this.#count();
    if (broken !== undefined) {
      this.#vring.failed(broken);
      // A ring that breaks is taken back, with what was taken from it.
      if (this.#handed !== ring) return 0;
      // One that waits for an address is not looked at any more, unless there is something to show.
      if (this.#hidden) this.#vring.reactor.wake(this);
    } else if (count < most && !this.#dry) {
      this.#dry = true;
      this.#vring.reactor.wake(this);
    }
    return count;
  }

  complete(chain: Chain): void {
    const ring = this.#handed;
    if (ring === undefined || !chain.inFlight || chain.turn === COMPLETED) return;
    if (chain.turn !== this.#returns) this.#ordered = false;
    chain.turn = COMPLETED;
    this.#returns = (this.#returns + 1) & TURNS;
    this.#newReturned++;
    this.#newWritten += chain.written;
    if (chain.since !== 0) this.#sampler.end(chain.since);
    ring.push(chain);
    if (++this.#unshown === SHOW_AFTER) return this.publish();
    if (this.#hidden) return;
    this.#hidden = true;
    this.#vring.reactor.wake(this);
  }

  publish(): void {
    this.#hidden = false;
    this.#unshown = 0;
    this.#count();
    if (this.#handed !== undefined) this.#vring.show(this.#handed);
  }

  wake(): void {
    if (this.#handed === undefined) return;
    this.#more = true;
    this.#vring.reactor.wake(this);
  }
}
