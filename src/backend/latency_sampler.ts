/**
 * Which requests are timed.
 *
 * @module
 */

import type { RingCounters } from "./ring_counters.ts";

/** How often a ring that is busy is measured at most, ms. */
const EVERY = 1;
/** The widest gap between two requests that are timed. */
const WIDEST = 4096;
/** Requests after which it is looked whether anybody wants to know by now. */
const UNTIL_ASKED = 64;

/**
 * Times each request of a ring that has little to do, and about a thousand a second of one that has much: reading the clock
 * takes as long as a small request. Gaps between samples vary at random, so that they do not fall in with the driver's habits.
 *
 * As long as nobody asks, the clock is not read at all.
 */
export class LatencySampler {
  readonly #counters: RingCounters;
  /** Mean of the gaps. */
  #gap = 1;
  #last = 0;
  /** Requests to the next one that is timed, itself included. */
  gap = 1;

  /** Of a ring. */
  constructor(counters: RingCounters) {
    this.#counters = counters;
  }

  /** A request is to be timed. Returns when it was taken, for {@link end}, or 0 when nobody wants to know; and sets {@link gap}. */
  begin(): number {
    if (!this.#counters.measuring) {
      this.gap = UNTIL_ASKED;
      return 0;
    }
    const now = performance.now();
    this.#gap = now - this.#last < EVERY ? Math.min(WIDEST, 2 * this.#gap) : Math.max(1, this.#gap >> 1);
    this.#last = now;
    this.gap = 1 + Math.floor(Math.random() * (2 * this.#gap - 1));
    return now;
  }

  /** The request was returned. */
  end(since: number): void {
    this.#counters.measure((performance.now() - since) * 1000);
  }
}
