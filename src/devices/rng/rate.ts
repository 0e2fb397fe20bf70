/**
 * How many bytes may pass in how much time.
 *
 * @module
 */

/** A limit on bytes. */
export interface RateLimit {
  /** Bytes in each period, and the most at once. */
  readonly bytes: number;
  /** The period, ms; 1000 by default. */
  readonly periodMs?: number;
}

/** Counts what has passed: a bucket that fills steadily, and from which bytes are taken. */
export class RateLimiter {
  /** Bytes that fit: the most that pass at once. */
  readonly capacity: number;
  readonly #perMs: number;
  readonly #now: () => number;
  #tokens: number;
  #seen: number;

  /**
   * A full bucket.
   *
   * @param now the clock, ms
   * @throws {RangeError} for a limit that lets nothing pass
   */
  constructor({ bytes, periodMs = 1000 }: RateLimit, now: () => number = () => performance.now()) {
    if (!Number.isSafeInteger(bytes) || bytes < 1) {
      throw new RangeError(`a rate limit has 1 byte or more in each period, got ${bytes}`);
    }
    if (!Number.isInteger(periodMs) || periodMs < 1 || periodMs > 86_400_000) {
      throw new RangeError(`the period of a rate limit is 1 ms to a day (86400000 ms), got ${periodMs}`);
    }
    this.capacity = this.#tokens = bytes;
    this.#perMs = bytes / periodMs;
    this.#now = now;
    this.#seen = now();
  }

  /** How long until `bytes` may pass, whole ms; 0 for now. No more than {@link capacity} are waited for. */
  wait(bytes: number): number {
    const now = this.#now();
    this.#tokens = Math.min(this.capacity, this.#tokens + (now - this.#seen) * this.#perMs);
    this.#seen = now;
    const missing = Math.min(bytes, this.capacity) - this.#tokens;
    // Sums of fractions may be a little short.
    return missing <= 1e-6 ? 0 : Math.ceil(missing / this.#perMs);
  }

  /** Counts bytes that have passed. */
  take(bytes: number): void {
    this.#tokens -= bytes;
  }
}
