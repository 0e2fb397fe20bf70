/**
 * Which requests go wrong.
 *
 * @module
 */

import type { Queue, RequestFormat } from "../backend/device.ts";
import type { Chain } from "../virtqueue/chain.ts";
import type { FaultRule } from "./rule.ts";

/** Numbers for each rule: requests that it is about, and those that went wrong by it. */
const PER_RULE = 2;

/** Memory to count in. It may be shared by threads. */
export function countersFor(rules: number): SharedArrayBuffer {
  return new SharedArrayBuffer(4 * PER_RULE * Math.max(1, rules));
}

/** A number from 0 up to, but not including, 1, that follows from two others (the finalizer of MurmurHash3). */
export function randomOf(seed: number, n: number): number {
  let hash = Math.imul(n, 0x9e3779b1) ^ Math.imul(seed + 0x85ebca6b, 0xc2b2ae35);
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
  return ((hash ^ hash >>> 16) >>> 0) / 0x1_0000_0000;
}

/** The rules of a device. Where it runs in several threads each has a plan, and they count together. */
export class FaultPlan {
  /** What the device says of its requests. */
  readonly requests: RequestFormat | undefined;
  /** Asked in this order; the first that makes a request go wrong decides. */
  readonly rules: readonly FaultRule[];
  readonly #counts: Int32Array;

  /** @param counters of {@link countersFor} as many rules */
  constructor(rules: readonly FaultRule[], requests: RequestFormat | undefined, counters: SharedArrayBuffer) {
    this.rules = rules;
    this.requests = requests;
    this.#counts = new Int32Array(counters);
  }

  /** How many requests a rule was about. */
  seen(rule: number): number {
    return Atomics.load(this.#counts, PER_RULE * rule);
  }

  /** How many requests went wrong by a rule. */
  hits(rule: number): number {
    return Atomics.load(this.#counts, PER_RULE * rule + 1);
  }

  /** The rule by which a request goes wrong, if it does. Counts it. */
  pick(chain: Chain, queue: Queue): FaultRule | undefined {
    const kind = this.kindOf(chain, queue);
    for (let i = 0; i < this.rules.length; i++) {
      const rule = this.rules[i];
      if (this.#isAbout(rule, chain, queue, kind) && this.#fires(rule, i)) return rule;
    }
    return undefined;
  }

  /** The kind of a request. One that is malformed has none. */
  kindOf(chain: Chain, queue: Queue): string | undefined {
    try {
      return this.requests?.kindOf(chain, queue);
    } catch {
      return undefined;
    }
  }

  #isAbout(rule: FaultRule, chain: Chain, queue: Queue, kind: string | undefined): boolean {
    if (rule.ring !== undefined && rule.ring !== queue.index) return false;
    if (rule.kind !== undefined && rule.kind !== kind) return false;
    const { requests } = this;
    if (rule.error !== undefined && (kind === undefined || requests?.kinds[kind]?.fails !== true)) {
      return false;
    }
    if (rule.places === undefined) return true;
    try {
      return requests?.places?.touches(chain, ...rule.places) === true;
    } catch {
      return false;
    }
  }

  #fires(rule: FaultRule, index: number): boolean {
    const counts = this.#counts;
    const at = PER_RULE * index;
    const n = Atomics.add(counts, at, 1) + 1 - rule.after;
    if (n <= 0 || n % rule.every !== 0) return false;
    if (rule.probability < 1 && randomOf(rule.seed, n) >= rule.probability) return false;
    if (Atomics.add(counts, at + 1, 1) < rule.times) return true;
    Atomics.sub(counts, at + 1, 1);
    return false;
  }

  /** Answers a request that is not carried out, as a rule says: `error`, `lose`. Returns false when it is to be carried out. */
  answer(chain: Chain, queue: Queue, rule: FaultRule): boolean {
    if (rule.error === undefined && rule.lose === undefined) return false;
    this.#answer(chain, queue, rule.error ?? this.requests?.success ?? 0);
    return true;
  }

  /** Fails a request with the device's usual status. Returns whether it can. */
  fail(chain: Chain, queue: Queue): boolean {
    const [error] = Object.values(this.requests?.errors ?? {});
    return error !== undefined && this.#answer(chain, queue, error);
  }

  /** Writes a status where there is one. */
  #answer(chain: Chain, queue: Queue, status: number): boolean {
    const { requests } = this;
    const kind = this.kindOf(chain, queue);
    if (requests?.fail === undefined || kind === undefined || requests.kinds[kind]?.fails !== true) {
      return false;
    }
    try {
      requests.fail(chain, queue, status);
    } catch {
      // There is no room for a status: the driver is told that nothing was written.
      chain.written = 0;
      return false;
    }
    return true;
  }

  /** Does to an answer what a rule says: `corrupt`, `short`. */
  spoil(chain: Chain, queue: Queue, rule: FaultRule): void {
    if (rule.corrupt !== undefined) this.#corrupt(chain, queue, rule, rule.corrupt);
    if (rule.short !== undefined) chain.written = Math.min(chain.written, rule.short);
  }

  #corrupt(chain: Chain, queue: Queue, rule: FaultRule, bits: number): void {
    const kind = this.kindOf(chain, queue);
    const format = kind === undefined ? undefined : this.requests?.kinds[kind];
    // A device that says nothing of its requests answers with data alone.
    const data = this.requests === undefined ? [0, 0] : format?.data;
    if (data === undefined) return;
    const [before, after] = data;
    const length = Math.min(chain.written, chain.writable.byteLength) - after - before;
    if (length <= 0) return;
    const n = this.hits(this.rules.indexOf(rule));
    for (let i = 0; i < bits; i++) {
      const bit = Math.floor(randomOf(rule.seed + 1 + i, n) * length * 8);
      const at = before + (bit >>> 3);
      chain.writable.setUint8(at, chain.writable.getUint8(at) ^ 1 << (bit & 7));
    }
  }
}
