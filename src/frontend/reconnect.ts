/**
 * When to try again to reach a back-end that has gone.
 *
 * @module
 */

/** What a front-end does when its back-end goes. */
export interface ReconnectOptions {
  /** Wait before the first attempt, ms; each further one waits twice as long. 10 by default. */
  readonly firstDelay?: number;
  /** The longest wait between two attempts, ms; 1000 by default. */
  readonly longestDelay?: number;
  /** How long a back-end may be away in all, ms; for ever by default. */
  readonly patience?: number;
}

/** Nobody has come back in time. */
export class BackendGoneError extends Error {
  /** The error's class name. */
  override readonly name = "BackendGoneError";

  /** Says how long it was, and what the last attempt has failed for. */
  constructor(patience: number, cause: unknown) {
    const why = cause instanceof Error ? `: ${cause.message}` : "";
    super(`the back-end has not come back within ${patience} ms${why}`);
    this.cause = cause;
  }
}

/** One absence of a back-end: waits between attempts, longer each time. */
export class BackOff {
  readonly #options: Required<ReconnectOptions>;
  #delay: number;
  readonly #deadline: ReturnType<typeof setTimeout> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #wake: () => void = () => {};
  /** Whether it is no use to try again. */
  over = false;

  /**
   * @param delay the first wait, ms
   * @param onDeadline called when patience has ended, which may be in the middle of an attempt
   */
  constructor(options: Required<ReconnectOptions>, delay: number, onDeadline: () => void) {
    this.#options = options;
    this.#delay = delay;
    if (options.patience === Infinity) return;
    this.#deadline = setTimeout(() => {
      this.stop();
      onDeadline();
    }, options.patience);
  }

  /** Waits for the next attempt; returns early when there is to be none. */
  async wait(): Promise<void> {
    if (this.over) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      this.#timer = setTimeout(resolve, this.#delay);
    });
    this.#delay = Math.min(2 * this.#delay, this.#options.longestDelay);
  }

  /** Ends it, with or without success. */
  stop(): void {
    this.over = true;
    clearTimeout(this.#deadline);
    clearTimeout(this.#timer);
    this.#wake();
  }
}
