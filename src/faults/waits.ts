/**
 * Requests of a ring that wait for a time, or for ever.
 *
 * @module
 */

import { Reactor } from "../../ffi/reactor.ts";

/** Why a wait has ended: its time was over, the front-end waits for the ring, or the front-end has left. */
export type WaitEnd = "time" | "finish" | "gone";

/** Waits of one ring, all of which can be cut short. */
export class Waits {
  readonly #ends = new Set<(why: WaitEnd) => void>();

  /**
   * Calls back, once.
   *
   * @param time ms; Infinity to wait until {@link end}
   */
  wait(time: number, then: (why: WaitEnd) => void): void {
    const timed = time !== Infinity;
    const end = (why: WaitEnd): void => {
      if (!this.#ends.delete(end)) return;
      clearTimeout(timer);
      if (timed) Reactor.shared().completed();
      then(why);
    };
    this.#ends.add(end);
    // A thread that only runs rings would sleep over its timers.
    if (timed) Reactor.shared().deferred();
    const timer = timed ? setTimeout(() => end("time"), time) : undefined;
  }

  /** Ends all of them, in the order in which they have begun. */
  end(why: WaitEnd): void {
    for (const end of [...this.#ends]) end(why);
  }
}
