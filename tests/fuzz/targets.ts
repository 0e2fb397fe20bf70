/**
 * The list of targets.
 *
 * @module
 */

import type { Target } from "./target.ts";

/** All targets. Add with `as Target`: what a step is, only the target knows. */
export const targets: readonly Target[] = [];

/**
 * The target of a name.
 *
 * @throws {RangeError} when there is none
 */
export function targetOf(name: string): Target {
  const target = targets.find((each) => each.name === name);
  if (target === undefined) throw new RangeError(`no target '${name}'`);
  return target;
}
