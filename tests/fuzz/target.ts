/**
 * What a fuzzer is. `targets.ts` has the list of all; `child.ts` runs one, `campaign.ts` starts that, repeats what has failed
 * and makes it small.
 *
 * @module
 */

import type { Scope } from "../support/cleanup.ts";
import type { Random } from "../support/random.ts";

/**
 * Something that is worked on with nonsense. A case is a list of steps that follows from the random source alone: the
 * same seed and number make the same case, in whatever process, and a case of which some steps are left out is one as
 * well. So a failure can be repeated and made small.
 */
export interface Target<Step = unknown> {
  /** Its name on the command line. */
  readonly name: string;
  /** What it does, in a line. */
  readonly summary: string;
  /** What {@link Stand.run} counts, such as "messages". */
  readonly unit: string;
  /** Cases of the run in continuous integration, which has a fixed seed. */
  readonly cases: number;
  /** The least that those cases have to count, so that the run cannot come to nothing unseen. */
  readonly least: number;
  /** Makes the steps of a case. Opens nothing, and keeps nothing between calls. */
  make(random: Random): readonly Step[];
  /** A step for people, in a line; JSON by default. */
  describe?(step: Step): string;
  /**
   * Sets up what all cases work on; what is opened is closed with the scope. Does also once what leaves something behind the
   * first time only (a thread that stays, a module that is loaded): what is open and mapped from here on is what has
   * to be after each case.
   */
  open(scope: Scope): Promise<Stand<Step>>;
}

/** A target that is set up. */
export interface Stand<Step = unknown> {
  /**
   * Does one case, in bounded time, and closes all that it has opened.
   *
   * @returns what it has done, in the target's unit
   * @throws when something is wrong
   */
  run(steps: readonly Step[]): Promise<number>;
  /** What is worth knowing about all cases up to now, in words, such as how many were answered. */
  notes?(): string;
}

/** The seed of a case. Neighbours have nothing in common. */
export function caseSeed(seed: number, index: number): number {
  return mix(mix(seed) ^ mix(index + 0x5bd1_e995));
}

/** Mixes 32 bits thoroughly ("murmur3", its finish). */
function mix(x: number): number {
  x ^= x >>> 16;
  x = Math.imul(x, 0x85eb_ca6b);
  x ^= x >>> 13;
  x = Math.imul(x, 0xc2b2_ae35);
  return (x ^ (x >>> 16)) >>> 0;
}
