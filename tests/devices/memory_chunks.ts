import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { ChunkStore } from "../../src/devices/blk/mod.ts";
import type { Random } from "../support/random.ts";

/** How a store of the tests behaves. */
export interface MemoryChunksOptions {
  /** Milliseconds that an operation takes; by default everything is done at once. */
  readonly delay?: () => number;
  /** Whether an operation fails, by name and chunk. */
  readonly fails?: (name: "read" | "write" | "erase" | "flush", index: number) => boolean;
  /** Operations that may be under way at once. */
  readonly concurrency?: number;
}

/** Chunks in memory; looks at whether its user keeps to what a store may rely on. */
export class MemoryChunks implements ChunkStore {
  readonly size: number;
  readonly chunkSize: number;
  /** What is stored. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** What was done, such as `read 3`. */
  readonly done: string[] = [];
  /** What its user has done wrong. */
  readonly offences: string[] = [];
  closed = false;
  /** The most operations that were under way at once. */
  most = 0;
  readonly #options: MemoryChunksOptions;
  readonly #busy = new Set<number>();

  constructor(bytes: Uint8Array<ArrayBuffer>, chunkSize: number, options: MemoryChunksOptions = {}) {
    this.bytes = bytes;
    this.size = bytes.length;
    this.chunkSize = chunkSize;
    this.#options = options;
  }

  async #operation(name: "read" | "write" | "erase", index: number, act: () => void): Promise<void> {
    const { delay, fails, concurrency = 16 } = this.#options;
    if (this.closed) this.offences.push(`${name} ${index} after close`);
    if (this.#busy.has(index)) this.offences.push(`${name} ${index} beside another operation`);
    this.#busy.add(index);
    this.most = Math.max(this.most, this.#busy.size);
    if (this.#busy.size > concurrency) this.offences.push(`${this.#busy.size} operations`);
    try {
      if (delay !== undefined) await sleep(delay());
      if (fails?.(name, index)) throw new Error(`${name} ${index} fails`);
      act();
      this.done.push(`${name} ${index}`);
    } finally {
      this.#busy.delete(index);
    }
  }

  #range(index: number): Uint8Array {
    return this.bytes.subarray(index * this.chunkSize, (index + 1) * this.chunkSize);
  }

  read(index: number, data: Uint8Array): Promise<void> {
    assert.equal(data.length, this.#range(index).length);
    return this.#operation("read", index, () => data.set(this.#range(index)));
  }

  async write(index: number, data: Uint8Array, from: number, to: number): Promise<void> {
    const before = data.slice();
    const stored = this.#range(index);
    assert.equal(data.length, stored.length);
    await this.#operation("write", index, () => {
      // Only what was said to have changed: the rest must be there already.
      stored.set(data.subarray(from, to), from);
    });
    if (before.some((byte, i) => byte !== data[i])) this.offences.push(`chunk ${index} changed under way`);
  }

  erase(index: number): Promise<void> {
    return this.#operation("erase", index, () => void this.#range(index).fill(0));
  }

  flush(): void {
    if (this.#options.fails?.("flush", -1)) throw new Error("flush fails");
    this.done.push("flush");
  }

  close(): void {
    this.closed = true;
  }
}

/** A delay of up to some milliseconds, so that operations overtake each other. */
export function upTo(random: Random, ms: number): () => number {
  return () => random.int(0, ms);
}
