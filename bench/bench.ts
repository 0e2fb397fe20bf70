/**
 * What a bench is: how it is asked for, what it measures and what it hands back. `main.ts` has the list of all; tables,
 * JSON and plots are made of what they hand back.
 */

import { writeFileSync } from "node:fs";
import { arch, cpus, release } from "node:os";
import process from "node:process";
import { type Command, type Option, UsageError, type Values } from "../src/cli/command.ts";
import { onEnd, type Scope } from "../tests/support/cleanup.ts";
import { peer, type PeerName } from "../tests/support/peers.ts";
import { plot } from "./plot.ts";
import { Progress } from "./progress.ts";
import { reportText } from "./report.ts";
import type { Figures } from "./stats.ts";

/** Where something is measured: a value on each axis, such as a depth of 32. */
export type Point = Readonly<Record<string, string | number>>;

/** Who is measured. */
export interface Subject {
  /** Its name in tables and plots. */
  readonly name: string;
  /** Whether it is another program, which ours is compared with. */
  readonly peer: boolean;
}

/** What was measured at one point. */
export interface Row {
  /** Where. */
  readonly point: Point;
  /** What the figures count, such as `requests/s`. */
  readonly unit: string;
  /** Which figures are better. */
  readonly better: "more" | "less";
  /** By subject. Round n of all of them was measured at about the same time. */
  readonly figures: Readonly<Record<string, Figures>>;
}

/** What a bench hands back. */
export interface Findings {
  /** What the figures mean, in whole sentences. */
  readonly title: string;
  /** Who was measured: first ours, its first being the one that is compared. */
  readonly subjects: readonly Subject[];
  /** The figures. */
  readonly rows: readonly Row[];
  /** The axis that goes to the right in plots. */
  readonly across: string;
  /** What could not be measured here, and why. */
  readonly notes?: readonly string[];
}

/** What a bench is given. */
export interface BenchContext {
  /** Its options. */
  readonly values: Values;
  /** Measurements of each figure. */
  readonly rounds: number;
  /** How long one measurement should take, as a multiple of the usual. */
  readonly scale: number;
  /** Whether a rough result is enough: fewer points by default. */
  readonly quick: boolean;
  /** Everything that is started for it ends with this. */
  readonly scope: Scope;
  /** Tells how far it is. */
  readonly progress: Progress;
}

/** A bench. */
export interface Bench {
  /** What it measures, in a sentence. */
  readonly summary: string;
  /** What it cannot do without. Peers that are compared with are not among that. */
  readonly needs: readonly PeerName[];
  /** Its own options; {@link COMMON} come on top. */
  readonly options: Readonly<Record<string, Option>>;
  /** Command lines with what they do. */
  readonly examples: Command["examples"];
  /** Measures. */
  measure(context: BenchContext): Promise<Findings>;
}

/** Options that every bench has. */
const COMMON: Readonly<Record<string, Option>> = {
  rounds: { value: "N", help: "Measurements of each figure (default 5; with --quick 2)." },
  scale: { value: "X", help: "Longer or shorter measurements (default 1; with --quick 0.1)." },
  quick: { help: "A rough result soon." },
  json: { help: "Print everything that was measured as JSON." },
  svg: { value: "FILE", help: "Write a plot of it." },
};

/** One or more numbers above 0, separated by commas. */
export function numbers(name: string, text: string): number[] {
  return words(text).map((each) => {
    const number = Number(each);
    if (!(number > 0 && number < Infinity)) {
      throw new UsageError(`--${name}: '${each}' is not a number above 0`);
    }
    return number;
  });
}

/** The same for whole numbers. */
export function wholeNumbers(name: string, text: string): number[] {
  for (const each of words(text)) {
    if (!/^[1-9]\d{0,8}$/.test(each)) {
      throw new UsageError(`--${name}: '${each}' is not a whole number above 0`);
    }
  }
  return numbers(name, text);
}

/** One or more of some words, separated by commas. */
export function choices<T extends string>(name: string, text: string, known: readonly T[]): T[] {
  return words(text).map((each) => {
    const found = known.find((word) => word === each);
    if (found === undefined) throw new UsageError(`--${name}: '${each}' is none of ${known.join(", ")}`);
    return found;
  });
}

function words(text: string): string[] {
  return text.split(",").map((each) => each.trim());
}

/** A single number above 0. */
function number(name: string, text: string): number {
  const all = numbers(name, text);
  if (all.length > 1) throw new UsageError(`--${name}: one number, got '${text}'`);
  return all[0];
}

/** The peers among these that are there, and why the others are not. */
export function available(names: readonly PeerName[]): { there: PeerName[]; missing: string[] } {
  const missing = names.map(peer).flatMap((found) => "missing" in found ? [found.missing] : []);
  return { there: names.filter((name) => "path" in peer(name)), missing };
}

/** The bench as a command. */
export function commandOf(name: string, bench: Bench): Command {
  return {
    summary: bench.summary,
    options: { ...bench.options, ...COMMON },
    examples: bench.examples,
    run: async (values, output) => {
      const quick = values.quick === true;
      const { missing } = available(bench.needs);
      if (missing.length > 0) throw new Error(missing.join("\n"));
      const rounds = wholeNumbers("rounds", String(values.rounds ?? (quick ? 2 : 5)));
      if (rounds.length > 1) throw new UsageError(`--rounds: one number, got '${values.rounds}'`);
      const scale = number("scale", String(values.scale ?? (quick ? 0.1 : 1)));
      const ends: (() => void | Promise<void>)[] = [];
      const scope: Scope = { after: (fn) => void ends.push(fn) };
      const stop = (): void => void undo(ends).finally(() => process.exit(130));
      process.once("SIGINT", stop);
      process.once("SIGTERM", stop);
      let findings: Findings;
      try {
        const progress = new Progress((line) => output.error(line));
        onEnd(scope, () => progress.end());
        findings = await bench.measure({ values, rounds: rounds[0], scale, quick, scope, progress });
      } finally {
        process.off("SIGINT", stop);
        process.off("SIGTERM", stop);
        await undo(ends);
      }
      if (typeof values.svg === "string") writeFileSync(values.svg, await plot(findings));
      const machine = {
        processors: cpus().length,
        model: cpus()[0]?.model ?? "unknown",
        arch: arch(),
        kernel: release(),
        deno: process.versions.deno,
      };
      const date = new Date().toISOString();
      output.out(
        values.json === true
          ? JSON.stringify({ bench: name, date, machine, rounds: rounds[0], scale, ...findings }, null, 2)
          : reportText(findings, rounds[0], `${date.slice(0, 10)}, ${machine.processors} × ${machine.model}`),
      );
      return 0;
    },
  };
}

async function undo(ends: (() => void | Promise<void>)[]): Promise<void> {
  for (const end of ends.splice(0)) await end();
}
