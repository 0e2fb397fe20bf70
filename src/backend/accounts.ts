/**
 * What a session uses of what it may.
 *
 * @module
 */

import { FieldError } from "../protocol/error.ts";

/** What memory is mapped for. */
export type MemoryUse = "guest memory" | "dirty log" | "in-flight buffer";

/** Bytes that are mapped for a session. */
export class MemoryAccount {
  readonly #limit: number;
  readonly #used = new Map<MemoryUse, number>();

  /** @param limit bytes, of all uses together */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Checks that a use may have so many bytes from now on, in place of what it has.
   *
   * @throws {FieldError}
   */
  check(use: MemoryUse, bytes: number): void {
    const [others, names] = [...this.#used].reduce<[number, string[]]>(
      ([sum, names], [name, size]) =>
        name === use || size === 0 ? [sum, names] : [sum + size, [...names, name]],
      [0, []],
    );
    if (others + bytes <= this.#limit) return;
    const besides = names.length === 0 ? "" : ` with ${names.join(" and ")}`;
    throw new FieldError(`${use}${besides}`, `at most ${this.#limit} bytes (limit memory)`, others + bytes);
  }

  /** It has. */
  set(use: MemoryUse, bytes: number): void {
    this.#used.set(use, bytes);
  }
}

/** Requests under way in handlers. Counting allocates nothing. */
export class RequestAccount {
  /** How many more there may be. */
  left: number;
  readonly #onFree: () => void;

  /** @param onFree called when there may be one again after there could be none */
  constructor(limit: number, onFree: () => void) {
    this.left = limit;
    this.#onFree = onFree;
  }

  /** One begins. */
  begin(): void {
    this.left--;
  }

  /** One has ended. */
  end(): void {
    if (this.left++ === 0) this.#onFree();
  }
}
