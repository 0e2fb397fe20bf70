/**
 * Which requests a device returns when it names only the last of them (IN_ORDER; virtio 1.4, 2.7.9 and 2.8.8).
 *
 * @module
 */

import { DriverRingError, type Used } from "./driver_ring.ts";

/** Requests in the order in which they were added, and those of one used element that were not taken yet. */
export class RingOrder {
  readonly #heads: Uint16Array;
  /** Bytes that the device may write, by head. */
  readonly #rooms: Float64Array;
  #first = 0;
  #count = 0;
  #batch = 0;
  #written = 0;

  /** For a ring of `size` entries. */
  constructor(size: number) {
    this.#heads = new Uint16Array(size);
    this.#rooms = new Float64Array(size);
  }

  /** Forgets everything. */
  reset(): void {
    this.#first =
      this.#count =
      this.#batch =
      this.#written =
        0;
  }

  /** A request was added. */
  add(head: number, room: number): void {
    this.#heads[(this.#first + this.#count++) % this.#heads.length] = head;
    this.#rooms[head] = room;
  }

  /** Requests of the last used element that {@link next} has still to give. */
  get batch(): number {
    return this.#batch;
  }

  /**
   * The device has returned everything up to a request.
   *
   * @param head in flight
   * @returns how many that is
   */
  returned(head: number, written: number): number {
    let count = 0;
    while (this.#heads[(this.#first + count++) % this.#heads.length] !== head) {
      if (count === this.#count) {
        throw new DriverRingError(`used element returns head ${head}, which was not added in order`);
      }
    }
    this.#written = written;
    return this.#batch = count;
  }

  /** Takes one of them. Requests that the device has skipped count as written in full. */
  next(): Used {
    const head = this.#heads[this.#first];
    this.#first = (this.#first + 1) % this.#heads.length;
    this.#count--;
    return { head, written: --this.#batch === 0 ? this.#written : this.#rooms[head] };
  }
}
