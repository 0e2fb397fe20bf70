/**
 * What a conformance case is.
 *
 * @module
 */

import type { DeviceKind, Finding, Needs } from "./finding.ts";
import type { Trial } from "./trial.ts";

/** One thing to check. */
export interface Case {
  /** Short name, unique: group, dot, words with hyphens. */
  readonly id: string;
  /** What is right, as a sentence. */
  readonly title: string;
  /** Where that is written: document and section. */
  readonly section: string;
  /** Kinds of device it is for; all when absent. */
  readonly devices?: readonly DeviceKind[];
  /** What it takes. */
  readonly needs?: Needs;
  /** Whether it writes to the device, or would if the device took what it should refuse. */
  readonly writes?: boolean;
  /** Tries it. An undefined result is a pass. */
  run(trial: Trial): Promise<Finding | void> | Finding | void;
}
