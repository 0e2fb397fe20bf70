/**
 * Runs cases of a target in a process of its own, so that a crash or a hang is a finding like any other; repeats what has
 * failed, alone and with fewer steps.
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type Scope, tempDir } from "../support/cleanup.ts";
import { Child } from "../support/process.ts";
import { startWords } from "../support/runtime.ts";
import { Random } from "../support/random.ts";
import type { Order, Report } from "./report.ts";
import { caseSeed, type Target } from "./target.ts";

/** How long a case may take unless the order says so, milliseconds: a machine may be busy with other things. */
const CASE_LIMIT = 60_000;
/** How often, at most, a failed case is run again to make it small, and for how long, milliseconds. */
const TRIALS = 60;
const SHRINK_LIMIT = 60_000;

/** How long something that is not expected to go may take to go after all, milliseconds. */
const SHORT_PATIENCE = 2000;

/** How far a run is. */
export interface Standing {
  /** Cases that were well. */
  readonly cases: number;
  /** What they have done, in the target's unit. */
  readonly units: number;
  /** Memory of the process, bytes. */
  readonly resident: number;
}

/** A run in which all was well. */
export type Success = Extract<Report, { kind: "end" }>;

/** A case that has failed. */
export interface Failure {
  /** Its number; -1 when the target could not even be set up. */
  readonly index: number;
  /** What was well before. */
  readonly standing: Standing;
  /** What was said about it. */
  readonly text: string;
}

/** Runs cases until one fails. */
export async function run(
  scope: Scope,
  order: Order,
  progress: (standing: Standing) => void = () => {},
): Promise<Success | Failure> {
  const program = [fileURLToPath(new URL("child.ts", import.meta.url)), JSON.stringify(order)];
  const words = startWords(["--allow-all", "--no-check", "--v8-flags=--expose-gc"], program);
  const child = Child.start(scope, process.execPath, words, {
    pipe: true,
    stubborn: true,
    env: { NO_COLOR: "1", RUST_BACKTRACE: "0", DENO_NO_UPDATE_CHECK: "1", TMPDIR: tempDir(scope) },
  });
  let index = -1;
  let units = 0;
  let resident = 0;
  let hung = false;
  let success: Success | undefined;
  const { limit = CASE_LIMIT } = order;
  const hang = (): void => {
    hung = true;
    void child.stop();
  };
  // Setting up may take longer than a case.
  let timer = setTimeout(hang, Math.max(limit, CASE_LIMIT));
  for await (const line of createInterface({ input: child.stdout })) {
    const report: Report = JSON.parse(line);
    if (report.kind === "end") success = report;
    else ({ index, units, resident } = report);
    clearTimeout(timer);
    timer = setTimeout(hang, limit);
    progress({ cases: Math.max(0, index - order.from), units, resident });
  }
  const status = await child.ended;
  clearTimeout(timer);
  await child.stop();
  if (success !== undefined && status === 0) return success;
  const why = hung ? `it did not end within ${limit / 1000} s` : `the process ended with status ${status}`;
  return {
    index,
    standing: { cases: Math.max(0, index - order.from), units, resident },
    text: `${child.output.trim()}\n${why}`.trim(),
  };
}

/** A failure, and how to see it again. */
export interface Repetition {
  /** What to order. */
  readonly order: Order;
  /** What is then said. */
  readonly text: string;
  /** Its steps for people, when it is one case. */
  readonly steps: readonly string[];
  /** Whether it has failed again at all. */
  readonly again: boolean;
}

/** Runs a failed case again: alone, or else with some before it, and then with as few steps as are needed for it to fail. */
export async function repeat(
  scope: Scope,
  target: Target,
  order: Order,
  failure: Failure,
  say: (text: string) => void,
): Promise<Repetition> {
  const { index } = failure;
  const whole: Order = { ...order, milliseconds: undefined, patience: order.patience ?? SHORT_PATIENCE };
  const deadline = performance.now() + SHRINK_LIMIT;
  const fails = async (from: number, steps?: readonly number[]): Promise<string | undefined> => {
    const outcome = await run(scope, { ...whole, from, cases: index - from + 1, steps });
    return "text" in outcome ? outcome.text : undefined;
  };
  for (let before = 0;; before = before * 2 + 1) {
    const from = Math.max(order.from, index - before);
    say(before === 0 ? "running the case again" : `running it again after ${index - from} others`);
    const text = await fails(from, order.steps);
    if (text !== undefined) {
      if (from !== index) {
        return { order: { ...whole, from, cases: index - from + 1 }, text, steps: [], again: true };
      }
      return await smaller(
        target,
        { ...whole, from, cases: 1 },
        text,
        say,
        deadline,
        (kept) => fails(from, kept),
      );
    }
    if (from === order.from || performance.now() > deadline) {
      const cases = index - order.from + 1;
      return {
        order: { ...whole, cases },
        text: failure.text,
        steps: [],
        again: false,
      };
    }
  }
}

/** Leaves out pieces of a case, ever smaller ones, as long as it still fails. */
async function smaller(
  target: Target,
  order: Order,
  first: string,
  say: (text: string) => void,
  deadline: number,
  fails: (kept: readonly number[]) => Promise<string | undefined>,
): Promise<Repetition> {
  const all = target.make(new Random(caseSeed(order.seed, order.from)));
  let kept = order.steps ?? all.map((_, i) => i);
  let text = first;
  let trials = 0;
  for (
    let size = Math.ceil(kept.length / 2);
    size >= 1 && kept.length > 1;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  ) {
    for (let at = 0; at < kept.length && kept.length > 1;) {
      if (++trials > TRIALS || performance.now() > deadline) size = 0;
      if (size === 0) break;
      const fewer = [...kept.slice(0, at), ...kept.slice(at + size)];
      const found = fewer.length === 0 ? undefined : await fails(fewer);
      if (found === undefined) {
        at += size;
        continue;
      }
      kept = fewer;
      text = found;
      say(`${kept.length} of ${all.length} steps fail as well`);
    }
    if (size === 0) break;
  }
  const describe = target.describe?.bind(target) ?? ((step: unknown) => JSON.stringify(step));
  return {
    order: { ...order, steps: kept.length === all.length ? undefined : kept },
    text,
    steps: kept.map((i) => `${i}: ${describe(all[i])}`),
    again: true,
  };
}

/** The command line that gives an order. */
export function commandLine({ target, seed, from, cases, steps }: Order): string {
  return [
    `deno task fuzz ${target} --seed=${seed} --from=${from}`,
    ...cases === undefined ? [] : [`--iterations=${cases}`],
    ...steps === undefined ? [] : [`--steps=${steps.join(",")}`],
  ].join(" ");
}
