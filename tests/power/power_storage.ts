/**
 * A disk in memory that writes down what is done to it, so that it can be told what would be left of it when the power is
 * cut at any moment.
 *
 * @module
 */

import type { Span } from "../../mod.ts";
import type { Storage } from "../../src/devices/blk/mod.ts";
import type { Random } from "../support/random.ts";

/** Something that was done to a disk: bytes that were put somewhere, or that all of it before was made durable. */
export type Event =
  | { readonly kind: "write"; readonly position: number; readonly data: Uint8Array }
  | { readonly kind: "flush" };

/** What becomes of writes that were done and not flushed when the power goes. */
export type Fate = "dropped" | "kept" | "some" | "torn";

/** A physical block, as our disk tells its size: it is written as a whole or not at all, which ext4 needs for its superblock. */
const BLOCK = 4096;

/** How such a disk behaves. */
export interface PowerOptions {
  /** Whether it only says that it flushes. */
  readonly lies?: boolean;
  /** Puts requests off by some milliseconds, each on its own. By default everything is done at once. */
  readonly delay?: () => number;
}

/** A disk with a cache that forgets. Discards and zeroes are writes to it. */
export class PowerStorage implements Storage {
  readonly readOnly = false;
  /** What was done, in order. */
  readonly events: Event[] = [];
  /** Flushes that were asked for. */
  flushes = 0;
  #first: Uint8Array;
  #now: Uint8Array;
  readonly #options: PowerOptions;

  /** @param first what it holds before anything is done; copied */
  constructor(first: Uint8Array, options: PowerOptions = {}) {
    this.#first = new Uint8Array(first);
    this.#now = new Uint8Array(first);
    this.#options = options;
  }

  get size(): number {
    return this.#now.length;
  }

  #later(act: () => void): void | Promise<void> {
    const { delay } = this.#options;
    if (delay === undefined) return act();
    return new Promise((resolve) =>
      setTimeout(() => {
        act();
        resolve();
      }, delay())
    );
  }

  #put(data: Uint8Array, position: number): void {
    this.#now.set(data, position);
    this.events.push({ kind: "write", position, data });
  }

  read(data: Span, position: number): void | Promise<void> {
    return this.#later(() => void data.copyFrom(this.#now.subarray(position, position + data.byteLength)));
  }

  write(data: Span, position: number): void | Promise<void> {
    return this.#later(() => {
      const bytes = new Uint8Array(data.byteLength);
      data.copyTo(bytes);
      this.#put(bytes, position);
    });
  }

  flush(): void | Promise<void> {
    this.flushes++;
    // What is done while it is under way is not part of it. Where it is among the events says what is.
    if (this.#options.lies !== true) this.events.push({ kind: "flush" });
    return this.#later(() => {});
  }

  discard(position: number, length: number): void {
    this.#put(new Uint8Array(length), position);
  }

  writeZeroes(position: number, length: number): void {
    this.#put(new Uint8Array(length), position);
  }

  close(): void {}

  /** Becomes another disk, to which nothing was done; of the same size, or the guest must be told. */
  replace(first: Uint8Array): void {
    this.#first = new Uint8Array(first);
    this.#now = new Uint8Array(first);
    this.events.length = 0;
  }

  /** What it holds now. */
  get contents(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#now);
  }

  /**
   * What it holds after the power was cut when so many events had happened: all that was done before the last flush among
   * them, and of what came after as fate has it: also later ones without earlier ones, and parts of long ones.
   *
   * @param random decides, where there is something to decide
   */
  after(cut: number, fate: Fate, random: Random): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#first);
    const flushed = this.events.slice(0, cut).findLastIndex(({ kind }) => kind === "flush");
    this.events.slice(0, cut).forEach((event, i) => {
      if (event.kind === "flush") return;
      const { position, data } = event;
      const whole = i < flushed || fate === "kept";
      if (whole || (fate === "some" && random.int(0, 1) === 0)) bytes.set(data, position);
      else if (fate === "torn") {
        for (let at = 0, size = 0; at < data.length; at += size) {
          size = BLOCK - (position + at) % BLOCK;
          if (random.int(0, 1) === 0) bytes.set(data.subarray(at, at + size), position + at);
        }
      }
    });
    return bytes;
  }
}
