/**
 * Faults of a ring that its device owns.
 *
 * @module
 */

import type { OwnedQueue, QueueOwner } from "../backend/device.ts";
import type { Endianness } from "../protocol/struct.ts";
import type { Chain } from "../virtqueue/chain.ts";
import { Answers } from "./answers.ts";
import type { FaultPlan } from "./plan.ts";
import type { FaultRule } from "./rule.ts";
import { Waits } from "./waits.ts";

/** Stands between a ring and its owner. */
export class FaultyOwner {
  /** Owns the ring. */
  readonly queue: QueueOwner;
  #lent: FaultyQueue | undefined;

  /** The ring does not run yet. */
  constructor(inner: QueueOwner, plan: FaultPlan) {
    this.queue = {
      start: (queue) => {
        const lent = this.#lent = new FaultyQueue(queue, plan);
        inner.start?.(lent);
      },
      work: () => this.#lent === undefined ? false : inner.work?.(this.#lent),
      stop: () => {
        const lent = this.#lent;
        if (lent === undefined) return;
        this.#lent = undefined;
        // What is held back is older than what the owner may still complete.
        lent.end();
        inner.stop?.(lent);
      },
    };
  }

  /** The ring stops by itself. */
  finish(): void {}

  /** The same. */
  abandon(): void {}
}

/** The ring as the owner sees it: requests that go wrong are not in it. */
class FaultyQueue implements OwnedQueue {
  readonly #queue: OwnedQueue;
  readonly #plan: FaultPlan;
  readonly #waits = new Waits();
  readonly #answers: Answers;
  /** What will be done to the answers of requests. */
  readonly #rules = new Map<Chain, FaultRule>();
  /** The request at which the ring stands still, or has. */
  #first: Chain | undefined;
  #stalled = false;
  #ended = false;

  constructor(queue: OwnedQueue, plan: FaultPlan) {
    this.#queue = queue;
    this.#plan = plan;
    this.#answers = new Answers(plan, this.#waits);
  }

  get index(): number {
    return this.#queue.index;
  }

  get size(): number {
    return this.#queue.size;
  }

  get features(): bigint {
    return this.#queue.features;
  }

  get endianness(): Endianness {
    return this.#queue.endianness;
  }

  take(): Chain | null {
    if (this.#stalled || this.#ended) return null;
    const first = this.#first;
    if (first !== undefined) {
      this.#first = undefined;
      return first;
    }
    for (;;) {
      const chain = this.#queue.take();
      if (chain === null) return null;
      const rule = this.#plan.pick(chain, this.#queue);
      if (rule === undefined) return chain;
      if (rule.stall !== undefined) {
        this.#stall(chain, rule.stall);
        return null;
      }
      if (rule.drop === true) {
        // One that cannot fail is taken from us when the ring stops.
        this.#waits.wait(Infinity, () => {
          if (this.#plan.fail(chain, this.#queue)) this.#queue.complete(chain);
        });
      } else if (this.#plan.answer(chain, this.#queue, rule)) {
        this.#answer(chain, rule);
      } else {
        this.#rules.set(chain, rule);
        return chain;
      }
    }
  }

  takeBurst(into: Chain[], at: number, most: number): number {
    for (let count = 0; count < most; count++) {
      const chain = this.take();
      if (chain === null) return this.#ended ? 0 : count;
      into[at + count] = chain;
    }
    return most;
  }

  #stall(chain: Chain, time: number): void {
    this.#first = chain;
    this.#stalled = true;
    this.#waits.wait(time, (why) => {
      this.#stalled = false;
      if (why === "time") this.#queue.wake();
    });
  }

  #answer(chain: Chain, rule: FaultRule): void {
    this.#answers.give(chain, this.#queue, rule, () => this.#queue.complete(chain));
  }

  complete(chain: Chain): void {
    const rule = this.#rules.get(chain);
    this.#rules.delete(chain);
    if (rule === undefined || this.#ended) this.#queue.complete(chain);
    else this.#answer(chain, rule);
  }

  publish(): void {
    this.#queue.publish();
  }

  wake(): void {
    this.#queue.wake();
  }

  /** The ring stops: nothing is held back any longer. */
  end(): void {
    this.#ended = true;
    this.#waits.end("finish");
  }
}
