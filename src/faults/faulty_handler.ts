/**
 * Faults of a ring whose requests a handler takes.
 *
 * @module
 */

import { LATER, type Queue, type QueueHandler } from "../backend/device.ts";
import type { Endianness } from "../protocol/struct.ts";
import type { Chain } from "../virtqueue/chain.ts";
import { Answers } from "./answers.ts";
import type { FaultPlan } from "./plan.ts";
import type { FaultRule } from "./rule.ts";
import { type WaitEnd, Waits } from "./waits.ts";

/** Stands between a ring and its handler. Requests that do not go wrong pass. */
export class FaultyHandler {
  /** Takes the ring's requests. */
  readonly queue: QueueHandler;
  readonly #inner: QueueHandler;
  readonly #plan: FaultPlan;
  readonly #waits = new Waits();
  readonly #answers: Answers;
  /** While the ring stands still: what waits for its end. */
  #stalled: ((why: WaitEnd) => void)[] | undefined;

  /** Nothing is wrong yet. */
  constructor(inner: QueueHandler, plan: FaultPlan) {
    this.#inner = inner;
    this.#plan = plan;
    this.#answers = new Answers(plan, this.#waits);
    this.queue = (chain, queue) => {
      if (this.#stalled !== undefined) return this.#afterStall(chain, queue);
      const rule = plan.pick(chain, queue);
      return rule === undefined ? inner(chain, queue) : this.#goWrong(rule, chain, queue);
    };
  }

  /** The front-end waits for all requests of the ring to complete. */
  finish(): void {
    this.#waits.end("finish");
  }

  /** The front-end has left. */
  abandon(): void {
    this.#waits.end("gone");
  }

  #afterStall(chain: Chain, queue: Queue): Promise<void> {
    return new Promise<WaitEnd>((resolve) => this.#stalled?.push(resolve)).then((why) => {
      // Its front-end has left, and gives it to another back-end.
      if (why === "gone") return;
      // It may come up to another fault, but not while somebody waits for the ring.
      if (why === "finish") return this.#run(chain, queue);
      if (this.#stalled !== undefined) return this.#afterStall(chain, queue);
      const rule = this.#plan.pick(chain, queue);
      return rule === undefined ? this.#run(chain, queue) : this.#goWrong(rule, chain, queue);
    });
  }

  async #goWrong(rule: FaultRule, chain: Chain, queue: Queue): Promise<void> {
    if (rule.stall !== undefined) {
      const stalled: ((why: WaitEnd) => void)[] = this.#stalled = [];
      const { stall } = rule;
      const why = await new Promise<WaitEnd>((resolve) => this.#waits.wait(stall, resolve));
      this.#stalled = undefined;
      const running = why === "gone" ? undefined : this.#run(chain, queue);
      for (const each of stalled) each(why);
      return await running;
    }
    if (rule.drop === true) {
      const why = await new Promise<WaitEnd>((resolve) => this.#waits.wait(Infinity, resolve));
      if (why === "finish") this.#plan.fail(chain, queue);
      return;
    }
    if (!this.#plan.answer(chain, queue, rule)) await this.#run(chain, queue);
    await new Promise<void>((resolve) => this.#answers.give(chain, queue, rule, resolve));
  }

  /** Has the handler carry out a request. Resolves when it has. */
  async #run(chain: Chain, queue: Queue): Promise<void> {
    const answered = new Answered(queue, chain);
    const result = this.#inner(chain, answered);
    if (result === LATER) await answered.done;
    else await result;
  }
}

/** A ring for a handler that has one request of it, and may complete that later. */
class Answered implements Queue {
  /** Resolves when the request is complete. */
  readonly done: Promise<void>;
  readonly #queue: Queue;
  readonly #chain: Chain;
  #resolve: () => void = () => {};

  constructor(queue: Queue, chain: Chain) {
    this.#queue = queue;
    this.#chain = chain;
    this.done = new Promise((resolve) => this.#resolve = resolve);
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

  complete(chain: Chain): void {
    if (chain === this.#chain) this.#resolve();
    else this.#queue.complete(chain);
  }
}
