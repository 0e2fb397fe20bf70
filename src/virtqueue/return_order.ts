/**
 * Returning requests in the order in which they came (IN_ORDER; virtio 1.4, 2.7.9 and 2.8.8).
 *
 * @module
 */

import type { Chain } from "./chain.ts";

/**
 * Which request in flight is the oldest, by {@link Chain.place}, and which are complete before their turn has come. Each is
 * returned by itself: one element for a batch would say that the requests before the last were written in full, and saves
 * nothing but a store each.
 */
export class ReturnOrder {
  /** By place: what was completed too early. */
  readonly #early: (Chain | undefined)[];
  #count = 0;
  /** Place of the oldest request in flight. */
  #next = 0;

  /** For a ring of `size` entries, which has taken nothing. */
  constructor(size: number) {
    this.#early = new Array(size).fill(undefined);
  }

  /** The device has completed a request. Returns whether it is its turn; else it is kept until {@link next}. */
  complete(chain: Chain): boolean {
    if (chain.place === this.#next) {
      this.#advance();
      return true;
    }
    if (this.#early[chain.place] === undefined) this.#count++;
    this.#early[chain.place] = chain;
    return false;
  }

  /** The request after the one that was returned last, if it is complete. */
  next(): Chain | undefined {
    if (this.#count === 0) return undefined;
    const chain = this.#early[this.#next];
    if (chain === undefined) return undefined;
    this.#early[this.#next] = undefined;
    this.#count--;
    this.#advance();
    return chain;
  }

  /** Forgets all requests: none is in flight any more, and places are counted from 0 again. */
  clear(): void {
    this.#next = this.#count = 0;
    this.#early.fill(undefined);
  }

  #advance(): void {
    if (++this.#next === this.#early.length) this.#next = 0;
  }
}

/**
 * The requests in flight of a ring of `size` entries, the one that was taken last first.
 *
 * @param next {@link Chain.place} of the next one to be taken
 */
export function newestFirst(inFlight: readonly Chain[], next: number, size: number): readonly Chain[] {
  const age = ({ place }: Chain): number => (next - place + size) % size || size;
  return [...inFlight].sort((a, b) => age(a) - age(b));
}
