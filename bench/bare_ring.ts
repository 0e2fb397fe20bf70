/**
 * The least that a program in this language can do for requests of a split ring: it finds their descriptors, notes where they are
 * and returns them, without checking anything. What `ring` shows beyond that is the price of checking.
 */

import type { RingPlace } from "../src/virtqueue/ring.ts";

const NEXT = 1;
const PIECES = 256;

/** A split ring, with a driver that can be trusted. */
export class BareRing {
  readonly #mask: number;
  readonly #words: Uint32Array;
  readonly #available: Uint16Array;
  readonly #usedIndex: Uint16Array;
  readonly #used: Uint32Array;
  readonly #offsets = new Float64Array(PIECES);
  readonly #lengths = new Float64Array(PIECES);
  #count = 0;
  #next = 0;

  /** Where nothing was taken yet. */
  constructor({ descriptor, available, used }: RingPlace, size: number) {
    this.#mask = size - 1;
    this.#words = new Uint32Array(descriptor.region.buffer, descriptor.offset, 4 * size);
    this.#available = new Uint16Array(available.region.buffer, available.offset, 3 + size);
    this.#usedIndex = new Uint16Array(used.region.buffer, used.offset, 2);
    this.#used = new Uint32Array(used.region.buffer, used.offset + 4, 2 * size);
  }

  /** Takes and returns everything. */
  work(): void {
    const seen = Atomics.load(this.#available, 1);
    for (; this.#next !== seen; this.#next = (this.#next + 1) & 0xffff) {
      const slot = this.#next & this.#mask;
      const head = this.#available[2 + slot];
      this.#take(head);
      this.#used[2 * slot] = head;
      this.#used[2 * slot + 1] = this.#count;
    }
    Atomics.store(this.#usedIndex, 1, this.#next);
  }

  #take(head: number): void {
    const words = this.#words;
    this.#count = 0;
    for (let at = 4 * head;;) {
      this.#offsets[this.#count] = words[at];
      this.#lengths[this.#count++] = words[at + 2];
      const last = words[at + 3];
      if ((last & NEXT) === 0) return;
      at = 4 * (last >>> 16);
    }
  }
}
