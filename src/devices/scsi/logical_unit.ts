/**
 * A logical unit as one front-end sees it.
 *
 * @module
 */

import { type Sense, senses } from "./sense.ts";
import type { ScsiUnit } from "./unit.ts";

/** The state of a unit that its driver sets, and what it has to be told. */
export class LogicalUnit {
  /** The disk. */
  readonly unit: ScsiUnit;
  /** Whether a write may be complete before it is durable (WCE). */
  writeBack = true;
  /** Whether the medium is at rest (START STOP UNIT). */
  stopped = false;
  readonly #attentions: Sense[] = [];

  /** As at power-on. */
  constructor(unit: ScsiUnit, attention: Sense = senses.POWER_ON) {
    this.unit = unit;
    this.#attentions.push(attention);
  }

  /** Whether the driver has something to be told. */
  get attentive(): boolean {
    return this.#attentions.length > 0;
  }

  /** Back to the state at power-on, and says so. */
  reset(attention: Sense): void {
    this.writeBack = true;
    this.stopped = false;
    // What has happened before does not matter any more (SAM-5, section 5.14).
    this.#attentions.length = 0;
    this.#attentions.push(attention);
  }

  /** Has the next command fail with a reason, so that the driver comes to know. */
  attend(sense: Sense): void {
    if (!this.#attentions.includes(sense)) this.#attentions.push(sense);
  }

  /** Takes what the driver is to be told next. */
  takeAttention(): Sense | undefined {
    return this.#attentions.shift();
  }

  /** The driver has learnt of something by another way. */
  forget(sense: Sense): void {
    const at = this.#attentions.indexOf(sense);
    if (at >= 0) this.#attentions.splice(at, 1);
  }
}
