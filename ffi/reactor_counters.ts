/**
 * What is counted of a reactor.
 *
 * @module
 */

const LOOKS = 0;
const NAPS = 1;
const SLEEPS = 2;
const WAITS = 3;
const WOKEN = 4;
const BREATH = 5;
const CELLS = 6;

/** Counters in memory that threads share: the reactor's thread counts, any other may read. */
export class ReactorCounters {
  /** For another thread, which makes an object of its own of it. */
  readonly shared: SharedArrayBuffer;
  readonly #cells: Float64Array;

  /** Counters at zero, or those of another thread. */
  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(CELLS * 8)) {
    this.shared = shared;
    this.#cells = new Float64Array(shared);
  }

  /** Times that it has looked at rings for as long as that pays. */
  get looks(): number {
    return this.#cells[LOOKS];
  }

  /** Naps in the kernel, of a millisecond at most. */
  get naps(): number {
    return this.#cells[NAPS];
  }

  /** Sleeps with a free event loop. */
  get sleeps(): number {
    return this.#cells[SLEEPS];
  }

  /** Waits in the kernel without limit, in a thread of its own. */
  get waits(): number {
    return this.#cells[WAITS];
  }

  /** Descriptors that the kernel said were ready. */
  get woken(): number {
    return this.#cells[WOKEN];
  }

  /** The longest time between two turns of the event loop, ms; 0 for no limit. {@link Reactor.breathe} sets it. */
  get breath(): number {
    return this.#cells[BREATH];
  }
  set breath(ms: number) {
    this.#cells[BREATH] = ms;
  }

  /** It looks. */
  look(): void {
    this.#cells[LOOKS]++;
  }

  /** It naps. */
  nap(): void {
    this.#cells[NAPS]++;
  }

  /** It sleeps. */
  sleep(): void {
    this.#cells[SLEEPS]++;
  }

  /** It waits. */
  wait(): void {
    this.#cells[WAITS]++;
  }

  /** Descriptors are ready. */
  wake(count: number): void {
    this.#cells[WOKEN] += count;
  }
}
