/**
 * What is counted of a ring.
 *
 * @module
 */

/** Cells: each has one thread that writes it, and anybody may read. */
const TAKEN = 0;
const RETURNED = 1;
const READABLE = 2;
const WRITTEN = 3;
const KICKS = 4;
const DROPPED = 5;
const NOTIFIED = 6;
const MEASURING = 7;
const SUM = 8;
const FAILED = 9;
const BROKEN = 10;
const BUCKETS = 11;

/** Octaves that buckets of {@link latencyBounds} cover, two in each. */
const OCTAVES = 24;
/** The unit of the buckets: as much as the first one takes, µs. */
const TICK = 0.25;

/**
 * Upper bounds of the buckets of latencies, µs, the bounds included; one more bucket takes what is longer. They grow by a third
 * and a half in turn, from 0.25 µs to 4.2 s: whatever is read out of them is right within a third.
 */
export const latencyBounds: readonly number[] = [
  TICK,
  ...Array.from({ length: OCTAVES }, (_, e) => [1.5 * TICK * 2 ** e, 2 * TICK * 2 ** e]).flat(),
];

const CELLS = BUCKETS + latencyBounds.length + 1;

/** The bucket that a latency falls into. */
export function latencyBucket(us: number): number {
  const ticks = us / TICK;
  if (!(ticks > 1)) return 0;
  if (ticks > 2 ** OCTAVES) return latencyBounds.length;
  const octave = 31 - Math.clz32(ticks);
  const start = 2 ** octave;
  if (ticks === start) return 2 * octave;
  return ticks <= 1.5 * start ? 2 * octave + 1 : 2 * octave + 2;
}

/**
 * Counters of one ring of a device, over all sessions. They lie in memory that threads share: the ring's thread counts, any
 * other may read.
 */
export class RingCounters {
  /** For another thread, which makes an object of its own of it. */
  readonly shared: SharedArrayBuffer;
  readonly #cells: Float64Array;

  /** Counters at zero, or those of another thread. */
  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(CELLS * 8)) {
    this.shared = shared;
    this.#cells = new Float64Array(shared);
  }

  /** Requests taken from the driver. */
  get taken(): number {
    return this.#cells[TAKEN];
  }

  /** Requests that the device has returned to it. */
  get returned(): number {
    return this.#cells[RETURNED];
  }

  /** Bytes that drivers have sent in requests. */
  get readable(): number {
    return this.#cells[READABLE];
  }

  /** Bytes that the device has written to requests, as it told the driver. */
  get written(): number {
    return this.#cells[WRITTEN];
  }

  /** Times that the driver has rung, as far as they were seen apart. While the ring is looked at it need not. */
  get kicks(): number {
    return this.#cells[KICKS];
  }

  /**
   * Requests that the device did not come to return: its ring was stopped, and they are the driver's again; or the front-end has
   * left. What was {@link taken} and neither returned nor dropped is in flight.
   */
  get dropped(): number {
    return this.#cells[DROPPED];
  }

  /** Notifications sent, as it wanted them. */
  get notified(): number {
    return this.#cells[NOTIFIED];
  }

  /** Requests whose handler has failed. */
  get failed(): number {
    return this.#cells[FAILED];
  }

  /** Times that the ring was broken. */
  get broken(): number {
    return this.#cells[BROKEN];
  }

  /** Whether latencies are measured. Any thread may switch it. */
  get measuring(): boolean {
    return this.#cells[MEASURING] !== 0;
  }
  set measuring(on: boolean) {
    this.#cells[MEASURING] = on ? 1 : 0;
  }

  /** Latencies that were measured, for each of {@link latencyBounds} and for what is longer: a copy. */
  get latencies(): Float64Array {
    return this.#cells.slice(BUCKETS);
  }

  /** The sum of all latencies that were measured, µs. */
  get latencySum(): number {
    return this.#cells[SUM];
  }

  /** Requests were taken. */
  take(count: number, readable: number): void {
    const cells = this.#cells;
    cells[TAKEN] += count;
    cells[READABLE] += readable;
  }

  /** Requests were returned. */
  giveBack(count: number, written: number): void {
    const cells = this.#cells;
    cells[RETURNED] += count;
    cells[WRITTEN] += written;
  }

  /** The driver has rung. */
  kick(): void {
    this.#cells[KICKS]++;
  }

  /** Requests will not be returned. */
  drop(count: number): void {
    this.#cells[DROPPED] += count;
  }

  /** It was told. */
  notify(): void {
    this.#cells[NOTIFIED]++;
  }

  /** A request has failed. Called in the server's thread. */
  fail(): void {
    this.#cells[FAILED]++;
  }

  /** The ring is broken. Called in the server's thread. */
  break(): void {
    this.#cells[BROKEN]++;
  }

  /** A latency was measured, µs. */
  measure(us: number): void {
    const cells = this.#cells;
    cells[BUCKETS + latencyBucket(us)]++;
    cells[SUM] += us;
  }
}
