/**
 * How long to look for work before sleeping, and how deep to sleep.
 *
 * @module
 */

/** How long a nap lasts at most, ms. The event loop stands still meanwhile. */
export const NAP = 1;
/** The shortest time worth looking, ms. */
const SHORTEST = 0.004;
/** Gaps that a nap would span most of the time, ms. */
const SHORT_GAP = NAP / 2;

/** Whether to do what pays at times. It goes on while one in three pays, and is tried anew when it may pay again. */
class Habit {
  static readonly #full = 16;
  static readonly #try = 4;
  static readonly #paid = 2;
  /** After how many hints it is tried again: at first, and at last when it never pays. */
  static readonly #first = 8;
  static readonly #last = 1024;
  #credit: number;
  #hints = 0;
  #tryAfter = Habit.#first;

  constructor(on: boolean) {
    this.#credit = on ? Habit.#full : 0;
  }

  get on(): boolean {
    return this.#credit > 0;
  }

  paid(): void {
    this.#credit = Math.min(Habit.#full, this.#credit + Habit.#paid);
    this.#tryAfter = Habit.#first;
  }

  inVain(): void {
    if (--this.#credit > 0) return;
    this.#hints = 0;
    this.#tryAfter = Math.min(Habit.#last, 2 * this.#tryAfter);
  }

  /** It would have paid, or nearly so. */
  hint(): void {
    if (!this.on && ++this.#hints >= this.#tryAfter) this.#credit = Habit.#try;
  }
}

/**
 * Learns from the gaps between work. Looking at shared memory sees work at once but takes the processor; a nap in the
 * kernel takes nothing and is woken in microseconds, but holds up the event loop; a sleep holds up nothing and takes tens
 * of microseconds to end. So: look while gaps are shorter than the ceiling, nap while they are shorter than a nap, sleep
 * otherwise.
 *
 * What counts is the gap as it was, however it was spent: a look that ended too early and a sleep that ended soon say that
 * a longer look would have paid.
 */
export class Pace {
  /** Longest time to look, ms; 0 for never. */
  ceiling: number;
  /** The gaps of late, ms: a maximum that fades; long until they are known. */
  #gap = Infinity;
  readonly #looking = new Habit(true);
  readonly #napping = new Habit(false);

  /** Looks, until it turns out not to pay. */
  constructor(ceiling: number) {
    this.ceiling = ceiling;
  }

  /** How long to look now, ms. */
  get window(): number {
    if (!this.#looking.on) return 0;
    return Math.min(this.ceiling, Math.max(SHORTEST, 3 * this.#gap));
  }

  /** Whether to nap before sleeping. */
  get naps(): boolean {
    return this.#napping.on;
  }

  /** Work was found while looking, after so many ms. */
  lookPaid(gap: number): void {
    this.#gap = Math.max(gap, Math.min(this.#gap, this.ceiling) * 0.98);
    this.#looking.paid();
  }

  /** A look has ended without work. */
  lookedInVain(): void {
    this.#looking.inVain();
  }

  /** A nap has ended, with or without something to do. */
  napped(paid: boolean): void {
    if (paid) this.#napping.paid();
    else this.#napping.inVain();
  }

  /** Work has come after so many ms, a nap or a sleep at the end of them. */
  slept(gap: number): void {
    if (gap < SHORT_GAP) this.#napping.hint();
    // The gap would have been shorter without the time to wake up, here and in the driver.
    if (gap > 2 * this.ceiling) return;
    this.#gap = Math.max(this.#gap, gap);
    this.#looking.hint();
  }
}
