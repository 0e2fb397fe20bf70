/**
 * Waiting for something that shows only when one looks.
 *
 * @module
 */

import { setImmediate } from "node:timers";

/** Looks without a pause at first: most answers come within microseconds. */
const EAGER = 200;

/** Waits some milliseconds. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Looks until there is something, leaving the event loop free in between.
 *
 * @param probe returns what was found, or `undefined`
 * @param ms how long
 * @returns what was found, or `undefined` when the time is over
 */
export async function until<T>(probe: () => T | undefined, ms: number): Promise<T | undefined> {
  const end = performance.now() + ms;
  for (let looks = 0;; looks++) {
    const found = probe();
    if (found !== undefined) return found;
    if (performance.now() >= end) return undefined;
    if (looks < EAGER) await new Promise<void>((resolve) => setImmediate(resolve));
    else await sleep(1);
  }
}

/** The same for a condition. */
export async function happens(condition: () => boolean, ms: number): Promise<boolean> {
  return await until(() => condition() ? true : undefined, ms) === true;
}
