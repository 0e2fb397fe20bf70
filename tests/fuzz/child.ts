/**
 * Runs cases of one target in this process, and says on its standard output which. The order is the one argument, as JSON. It
 * needs `--v8-flags=--expose-gc`.
 *
 * @module
 */

import assert from "node:assert/strict";
import { writeSync } from "node:fs";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { Random } from "../support/random.ts";
import { Footprint, memory } from "./footprint.ts";
import { patience } from "./patience.ts";
import type { Order, Report } from "./report.ts";
import { caseSeed, type Target } from "./target.ts";
import { targetOf } from "./targets.ts";

/** How often memory is looked at, milliseconds; and how often until it is known what a run needs. */
const LOOK_EVERY = 2000;
const WARM_UP = 3;
/** How long something may go wrong after the last case, milliseconds. */
const AFTERMATH = 50;
/** What scripts, and the process, may need more than after the warm-up, bytes. */
const HEAP_GROWTH = 32 << 20;
const RESIDENT_GROWTH = 192 << 20;

declare function gc(): void;

/** Memory that must not grow. */
class Flatness {
  grown = 0;
  readonly #every: number;
  #next: number;
  #looks = 0;
  #heap = 0;
  #resident = 0;

  constructor(every: number = LOOK_EVERY) {
    this.#every = every;
    this.#next = performance.now() + every;
  }

  /** Looks, when it is time. */
  look(): void {
    if (performance.now() < this.#next) return;
    gc();
    const { heap, resident } = memory();
    this.#next = performance.now() + this.#every;
    if (++this.#looks <= WARM_UP) {
      this.#heap = Math.max(this.#heap, heap);
      this.#resident = Math.max(this.#resident, resident);
      return;
    }
    this.grown = resident - this.#resident;
    assert.ok(
      heap <= this.#heap + HEAP_GROWTH,
      `scripts need ${heap} bytes, ${this.#heap} after the warm-up`,
    );
    assert.ok(
      this.grown <= RESIDENT_GROWTH,
      `the process has ${resident} bytes of memory, ${this.#resident} after the warm-up`,
    );
  }
}

function say(report: Report): void {
  writeSync(1, JSON.stringify(report) + "\n");
}

// Deno opens two sockets for signals some time after the start, or with the first listener: they are to be there already.
process.on("SIGUSR2", () => {});
// Scenes keep what nobody catches for the end of their test; here it ends the process.
process.removeAllListeners("uncaughtException");

async function work(scope: Scope, target: Target, order: Order): Promise<void> {
  const { seed, from, steps } = order;
  patience.milliseconds = order.patience ?? patience.milliseconds;
  const stand = await target.open(scope);
  const footprint = await Footprint.take();
  const flatness = new Flatness(order.lookEvery);
  const end = performance.now() + (order.milliseconds ?? Infinity);
  const last = from + (order.cases ?? Infinity);
  let units = 0;
  let index = from;
  let resident = memory().resident;
  for (; index < last && performance.now() < end; index++) {
    if ((index - from) % 16 === 0) resident = memory().resident;
    say({ kind: "case", index, units, resident });
    const all = target.make(new Random(caseSeed(seed, index)));
    units += await stand.run(steps === undefined ? all : all.filter((_, i) => steps.includes(i)));
    await footprint.restored();
    flatness.look();
  }
  // What goes wrong late, where nobody waits for it, is the fault of one of these cases too.
  await sleep(AFTERMATH);
  const notes = stand.notes?.() ?? "";
  say({ kind: "end", cases: index - from, units, notes, resident, grown: flatness.grown });
}

/** Ends what was opened, and the process with it, also where something is left that would keep it. */
async function main(order: Order): Promise<void> {
  const ends: (() => void | Promise<void>)[] = [];
  const scope: Scope = { after: (fn) => void ends.push(fn) };
  onEnd(scope, () => {});
  try {
    const target = order.module === undefined ? targetOf(order.target) : (await import(order.module)).default;
    await work(scope, target, order);
  } catch (error) {
    process.exitCode = 1;
    console.error(error);
  }
  for (const end of ends) await end();
  process.exit();
}

await main(JSON.parse(process.argv[2]));
