/**
 * A disk that does nothing, for measuring what is left then.
 *
 * @module
 */

import type { Storage } from "./storage.ts";

/**
 * Completes every request at once. What the guest reads is what its memory held before, as with `null-co` of QEMU without
 * `read-zeroes`: good for nothing but measuring.
 */
export class NullStorage implements Storage {
  /** Always false. */
  readonly readOnly = false;
  /** Bytes. */
  size: number;

  /** A disk of `size` bytes. */
  constructor(size: number) {
    this.size = size;
  }

  /** Changes nothing but the size that the guest sees. */
  resize(size: number): void {
    this.size = size;
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
