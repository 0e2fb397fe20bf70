/**
 * The list of targets.
 *
 * @module
 */

import { hostileFrontEnd, hostileFrontEndOfWorkers } from "./front_end/target.ts";
import { hostileGuests } from "./guest/target.ts";
import { changingMemory } from "./race/target.ts";
import type { Target } from "./target.ts";

/** All targets. Add with `as Target`: what a step is, only the target knows. */
export const targets: readonly Target[] = [
  hostileFrontEnd as Target,
  hostileFrontEndOfWorkers as Target,
  changingMemory as Target,
  ...hostileGuests as readonly Target[],
];

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
