/**
 * Requests of a ring that wait for a time, or for ever.
 *
 * @module
 */

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
    const end = (why: WaitEnd): void => {
      clearTimeout(timer);
      if (this.#ends.delete(end)) then(why);
    };
    this.#ends.add(end);
    const timer = time === Infinity ? undefined : setTimeout(() => end("time"), time);
  }

  /** Ends all of them, in the order in which they have begun. */
  end(why: WaitEnd): void {
    for (const end of [...this.#ends]) end(why);
  }
}
