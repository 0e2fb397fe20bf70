import { Buffer } from "node:buffer";
import process from "node:process";
import type { TestContext } from "node:test";

/** Numbers that look random and follow from a seed, so that what has failed can be run again. */
export class Random {
  #state: number;

  /** Prints the seed; `VHOST_SEED` in the environment sets it. */
  static of(t: TestContext): Random {
    const seed = Number(process.env.VHOST_SEED ?? Math.floor(Math.random() * 2 ** 32));
    t.diagnostic(`VHOST_SEED=${seed}`);
    return new Random(seed);
  }

  /** @param seed 32 bits */
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 32 bits (the "mulberry32" generator). */
  #next(): number {
    let x = this.#state = (this.#state + 0x6d2b79f5) | 0;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return (x ^ (x >>> 14)) >>> 0;
  }

  /** A whole number from `least` to `most`, both included. */
  int(least: number, most: number): number {
    return least + Math.floor(this.#next() / 2 ** 32 * (most - least + 1));
  }

  /** One of the list. */
  pick<T>(list: readonly T[]): T {
    return list[this.int(0, list.length - 1)];
  }

  /** Bytes that do not compress. */
  bytes(length: number): Buffer {
    const words = new Uint32Array(Math.ceil(length / 4));
    for (let i = 0; i < words.length; i++) words[i] = this.#next();
    return Buffer.from(words.buffer, 0, length);
  }
}
