/**
 * Answers on their way to the driver.
 *
 * @module
 */

import type { Queue } from "../backend/device.ts";
import type { Chain } from "../virtqueue/chain.ts";
import type { FaultPlan } from "./plan.ts";
import type { FaultRule } from "./rule.ts";
import type { Waits } from "./waits.ts";

/** How long answers wait for others that they could change places with, ms: a driver may have no more to ask. */
const REORDER_PATIENCE = 20;

/** Spoils, delays and reorders answers of one ring. */
export class Answers {
  readonly #plan: FaultPlan;
  readonly #waits: Waits;
  readonly #held = new Map<FaultRule, (() => void)[]>();

  /** @param waits of the ring */
  constructor(plan: FaultPlan, waits: Waits) {
    this.#plan = plan;
    this.#waits = waits;
  }

  /** Does what a rule says to an answer, and gives it, now or later. */
  give(chain: Chain, queue: Queue, rule: FaultRule, give: () => void): void {
    this.#plan.spoil(chain, queue, rule);
    const { delay, reorder } = rule;
    const last = reorder === undefined ? give : () => this.#reorder(rule, reorder, give);
    if (delay === undefined) last();
    else this.#waits.wait(delay, (why) => why === "time" ? last() : give());
  }

  #reorder(rule: FaultRule, count: number, give: () => void): void {
    const held = this.#held.get(rule) ?? [];
    this.#held.set(rule, held);
    held.push(give);
    const flush = (): void => {
      if (this.#held.get(rule) === held) this.#held.delete(rule);
      for (let each = held.pop(); each !== undefined; each = held.pop()) each();
    };
    if (held.length === count) {
      this.#held.delete(rule);
      // Whoever gives the last one may have to get ready for that first.
      queueMicrotask(flush);
    } else if (held.length === 1) {
      this.#waits.wait(REORDER_PATIENCE, flush);
    }
  }
}
