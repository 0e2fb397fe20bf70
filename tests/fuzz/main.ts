/**
 * `deno task fuzz`: works on targets with nonsense until Ctrl-C. See `--help` and docs/fuzzing.md.
 *
 * @module
 */

import process from "node:process";
import { type Command, type Output, UsageError, wholeNumber } from "../../src/cli/command.ts";
import { runCommand } from "../../src/cli/program.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { commandLine, type Failure, repeat, run, type Standing } from "./campaign.ts";
import type { Order } from "./report.ts";
import type { Target } from "./target.ts";
import { targetOf, targets } from "./targets.ts";

const PROGRAM = "deno task fuzz";

/** How long a target has its turn when there are several and nobody has said how long, milliseconds. */
const TURN = 60_000;

const standard: Output = {
  out: (line) => void process.stdout.write(`${line}\n`),
  error: (line) => void process.stderr.write(`${line}\n`),
};

/** A line about how far it is: over and over again on a terminal, every ten seconds elsewhere. */
class ProgressLine {
  /** How far it is, in words. */
  text = "";
  readonly #began = performance.now();
  #last = -Infinity;

  show(target: Target, seed: number, standing: Standing): void {
    const terminal = process.stderr.isTTY;
    const now = performance.now();
    const text = this.text = statement(target, seed, standing, now - this.#began);
    if (now - this.#last < (terminal ? 200 : 10_000)) return;
    this.#last = now;
    process.stderr.write(terminal ? `\r\x1b[K${text.slice(0, process.stderr.columns - 1)}` : `${text}\n`);
  }

  clear(): void {
    if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  }
}

/** How far a run is, in words. */
export function statement(
  { name, unit }: Pick<Target, "name" | "unit">,
  seed: number,
  { cases, units, resident }: Standing,
  milliseconds: number,
): string {
  const number = (n: number): string => Math.round(n).toLocaleString("en");
  return `${name}: seed ${seed}, ${number(cases)} cases, ${number(units)} ${unit}, ` +
    `${number(units / milliseconds * 1000)} ${unit}/s, ${number(resident / 2 ** 20)} MiB`;
}

/** The run that goes on. */
let progress: ProgressLine | undefined;
let stopped = false;

/** Runs one target; returns whether all was well. */
async function fuzz(scope: Scope, target: Target, order: Order, output: Output): Promise<boolean> {
  const line = progress = new ProgressLine();
  const began = performance.now();
  const outcome = await run(scope, order, (standing) => line.show(target, order.seed, standing));
  // It was ended with this program, which takes what is left with it.
  if (stopped) return await new Promise<never>(() => {});
  line.clear();
  if (!("text" in outcome)) {
    output.out(`${statement(target, order.seed, outcome, performance.now() - began)}; all well`);
    if (outcome.notes !== "") output.out(`  ${outcome.notes}`);
    return true;
  }
  await explain(scope, target, order, outcome, output);
  return false;
}

async function explain(
  scope: Scope,
  target: Target,
  order: Order,
  failure: Failure,
  output: Output,
): Promise<void> {
  if (failure.index < 0) {
    output.error(`${target.name}: it cannot be set up:\n${failure.text}`);
    return;
  }
  output.error(`${target.name}: case ${failure.index} of seed ${order.seed} has failed:\n${failure.text}\n`);
  const { text, steps, again, order: small } = await repeat(
    scope,
    target,
    order,
    failure,
    (what) => output.error(`${target.name}: ${what}`),
  );
  if (!again) output.error(`${target.name}: it has not failed again; the whole run was:`);
  else if (steps.length > 0) output.error(`${target.name}: these steps fail:\n  ${steps.join("\n  ")}`);
  if (again) output.error(text);
  output.error(`\nTo repeat it:\n  ${commandLine(small)}`);
}

const command: Command = {
  summary: "Works on the toolkit with nonsense that follows from a seed, until Ctrl-C or something is wrong.",
  options: {
    seed: { value: "N", help: "Repeat the run of this seed (default: a new one each time)." },
    minutes: { value: "N", help: "End after so many minutes for each target." },
    iterations: { value: "N", help: "End after so many cases of each target." },
    from: { value: "N", help: "Begin with this case (default 0)." },
    steps: { value: "LIST", help: "Only these steps of each case, as a failure was reported." },
    list: { help: "Print the targets." },
  },
  examples: [
    [PROGRAM, "All targets by turns, a minute each, with a new seed each time."],
    [`${PROGRAM} front-end`, "One of them, for as long as it is left alone."],
    [`${PROGRAM} front-end --seed=7 --from=1234 --iterations=1`, "One case again."],
  ],
  run: () => Promise.resolve(2),
};

/** The words before the first option, and the rest. */
function split(args: readonly string[]): [names: readonly string[], options: readonly string[]] {
  const at = args.findIndex((arg) => arg.startsWith("-"));
  return at < 0 ? [args, []] : [args.slice(0, at), args.slice(at)];
}

async function main(scope: Scope, args: readonly string[]): Promise<number> {
  const [names, options] = split(args);
  return await runCommand(
    `${PROGRAM} [TARGET…]`,
    {
      ...command,
      run: async (values, output) => {
        if (values.list === true) {
          const width = Math.max(...targets.map(({ name }) => name.length)) + 2;
          for (const { name, summary } of targets) output.out(`${name.padEnd(width)}${summary}`);
          return 0;
        }
        const chosen = names.length === 0 ? targets : names.map((name) => {
          const target = targets.find((each) => each.name === name);
          if (target === undefined) {
            throw new UsageError(`no target '${name}'; --list prints those that there are`);
          }
          return targetOf(target.name);
        });
        const number = (name: string, most: number): number | undefined =>
          values[name] === undefined ? undefined : wholeNumber(name, String(values[name]), 0, most);
        const seed = number("seed", 2 ** 32 - 1);
        const minutes = number("minutes", 1 << 20);
        const cases = number("iterations", 2 ** 31);
        const from = number("from", 2 ** 31) ?? 0;
        const steps = values.steps === undefined
          ? undefined
          : String(values.steps).split(",").map((each) => wholeNumber("steps", each, 0, 1 << 20));
        const bounded = minutes !== undefined || cases !== undefined;
        const milliseconds = minutes !== undefined
          ? minutes * 60_000
          : bounded || chosen.length === 1
          ? undefined
          : TURN;
        for (let round = 0; round === 0 || (!bounded && chosen.length > 1); round++) {
          for (const target of chosen) {
            const own = seed === undefined ? Math.floor(Math.random() * 2 ** 32) : (seed + round) >>> 0;
            const order = { target: target.name, seed: own, from, cases, milliseconds, steps };
            if (!await fuzz(scope, target, order, output)) return 1;
          }
        }
        return 0;
      },
    },
    options,
    standard,
  );
}

if (import.meta.main) {
  const ends: (() => void | Promise<void>)[] = [];
  const scope: Scope = { after: (fn) => void ends.push(fn) };
  onEnd(scope, () => {});
  const end = async (code: number): Promise<never> => {
    for (const each of ends) await each();
    process.exit(code);
  };
  process.once("SIGINT", () => {
    stopped = true;
    progress?.clear();
    if (progress !== undefined) standard.out(`${progress.text}; all well until it was stopped`);
    void end(0);
  });
  await end(await main(scope, process.argv.slice(2)));
}
