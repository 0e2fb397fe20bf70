/**
 * Returning requests in the order in which they came (IN_ORDER; virtio 1.4, 2.7.9 and 2.8.8).
 *
 * @module
 */

import type { Chain } from "./chain.ts";

/**
 * Requests that are in flight, the oldest first. Each is returned by itself: one element for a batch would say that the
 * requests before the last were written in full, and saves nothing but a store each.
 */
export class ReturnOrder {
  readonly #chains: (Chain | undefined)[];
  /** By {@link Chain.head}: whether the device has completed it. */
  readonly #completed: Uint8Array;
  #first = 0;
  #count = 0;

  /** For a ring of `size` entries. */
  constructor(size: number) {
    this.#chains = new Array(size);
    this.#completed = new Uint8Array(size);
  }

  /** The device takes a request. */
  take(chain: Chain): void {
    let at = this.#first + this.#count++;
    if (at >= this.#chains.length) at -= this.#chains.length;
    this.#chains[at] = chain;
  }

  /** The device has completed a request, in whatever order. */
  complete(chain: Chain): void {
    this.#completed[chain.head] = 1;
  }

  /** Forgets all requests: none is in flight any more. */
  clear(): void {
    this.#first = this.#count = 0;
    this.#completed.fill(0);
  }

  /** The next request to be returned, if it is complete. */
  next(): Chain | undefined {
    const chain = this.#chains[this.#first];
    if (this.#count === 0 || chain === undefined || this.#completed[chain.head] === 0) return undefined;
    this.#completed[chain.head] = 0;
    if (++this.#first === this.#chains.length) this.#first = 0;
    this.#count--;
    return chain;
  }
}
