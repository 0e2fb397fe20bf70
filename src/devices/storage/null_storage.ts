/**
 * A disk that does nothing, for measuring what is left then.
 *
 * @module
 */

import { SharedSize } from "./shared_size.ts";
import type { Storage, StorageSource } from "./storage.ts";

/** A disk that does nothing, for another thread. */
export interface SharedNull {
  /** Which storage it is. */
  readonly kind: "null";
  /** Its size, shared. */
  readonly size: SharedArrayBuffer;
}

/**
 * Completes every request at once. What the guest reads is what its memory held before, as with `null-co` of QEMU without
 * `read-zeroes`: good for nothing but measuring.
 */
export class NullStorage implements Storage {
  /** Always false. */
  readonly readOnly = false;
  /** How it is opened in a worker thread. */
  readonly worker: StorageSource;
  readonly #size: SharedSize;

  /** A disk of so many bytes, or what another one has said of itself. */
  constructor(size: number | SharedNull) {
    this.#size = new SharedSize(typeof size === "number" ? undefined : size.size);
    if (typeof size === "number") this.#size.bytes = size;
    this.worker = {
      module: import.meta.url,
      options: { kind: "null", size: this.#size.cell } satisfies SharedNull,
    };
  }

  /** Bytes. */
  get size(): number {
    return this.#size.bytes;
  }

  /** Changes nothing but the size that the guest sees. */
  resize(size: number): void {
    this.#size.bytes = size;
  }

  /** Leaves the guest's memory as it is. */
  read(): void {}

  /** Drops the data. */
  write(): void {}

  /** Nothing. */
  flush(): void {}

  /** Nothing. */
  discard(): void {}

  /** Nothing. */
  writeZeroes(): void {}

  /** Nothing. */
  close(): void {}
}

/** Opens one in another thread, by what the first has said of itself; what belongs to that stays with it. */
export default function open(shared: SharedNull): Storage {
  return new NullStorage(shared);
}
