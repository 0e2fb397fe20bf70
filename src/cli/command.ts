/**
 * Commands and their options, as data. Parsing, help, completions, manual pages and the documentation's lists of options
 * all come from this one table.
 *
 * @module
 */

import type { Paint } from "../tools/paint.ts";

/** An option of a command. */
export interface Option {
  /** What its value is, in capitals; absent for a switch. */
  readonly value?: string;
  /** All the values that there are; others are refused. */
  readonly choices?: readonly string[];
  /** What shells offer for the value, where more than that is possible: names of files or directories, or beginnings. */
  readonly offer?: "file" | "directory" | readonly string[];
  /** Whether it may be given several times; its values are a list then. */
  readonly multiple?: boolean;
  /** One letter that stands for it. */
  readonly short?: string;
  /** What it does, and its default. */
  readonly help: string;
  /** The heading that it stands under in lists; "Options" by default. */
  readonly section?: string;
  /** Whether lists leave it out: it is for this program itself. */
  readonly hidden?: boolean;
  /** That it will go: lists leave it out, and who uses it is warned. */
  readonly deprecated?: Deprecation;
}

/** That an option will go, not before the next minor version (CONTRIBUTING.md). */
export interface Deprecation {
  /** The version that first warned. */
  readonly since: string;
  /** The option that has taken its place, and takes its value: both are switches, or both have values. */
  readonly renamedTo?: string;
  /** What to do, where it is not a new name. */
  readonly advice?: string;
}

/** Options by name. */
export type Options = Readonly<Record<string, Option>>;

/** Where a command writes. */
export interface Output {
  /** A line of the result. */
  out(line: string): void;
  /** A line for people about what happens. */
  error(line: string): void;
  /** Colours lines of the result, where that is wanted. */
  readonly paint?: Paint;
}

/** Values of the options by name: text, several of it, or `true` for a switch. */
export type Values = Readonly<Record<string, string | readonly string[] | boolean | undefined>>;

/** What stands on a command line without a name. */
export interface Argument {
  /** What it is; its value goes by this name. */
  readonly name: string;
  /** All the values that there are; others are refused. */
  readonly choices?: readonly string[];
  /** What shells offer for it. */
  readonly offer?: "file";
  /** What it does. */
  readonly help: string;
  /** Whether it may be left out. */
  readonly optional?: boolean;
}

/** Permissions of Deno that some use of a command needs besides `--allow-ffi`, which all do. */
export interface Permission {
  /** The flags, each as narrow as it can be; what is in capitals is for the user to fill in. */
  readonly flags: readonly string[];
  /** The use. */
  readonly when: string;
}

/** A command of the command line. */
export interface Command {
  /** What it does: sentences, the first of which can stand alone. */
  readonly summary: string;
  /** What it takes besides options. */
  readonly argument?: Argument;
  /** Options by name. */
  readonly options: Options;
  /** Command lines with what they do. */
  readonly examples: readonly (readonly [command: string, meaning: string])[];
  /** What of Deno's permissions it needs, and for what; nothing but `--allow-ffi` by default. */
  readonly permissions?: readonly Permission[];
  /** Exit codes that mean something else than {@link exitCodes} say, and more of them. */
  readonly exitCodes?: Readonly<Record<number, string>>;
  /** For `--print-capabilities` (vhost-user, "Backend program conventions"). */
  readonly capabilities?: { readonly type: string; readonly features: readonly string[] };
  /**
   * Runs it.
   *
   * @returns the exit code
   * @throws {UsageError} for options that do not go together
   */
  run(values: Values, output: Output): Promise<number>;
}

/** Commands by name. Each is loaded when it is asked for: a disk starts no sooner for what a network needs. */
export type Commands = Readonly<Record<string, () => Promise<Command>>>;

/** Loads all of some commands, in their order. */
export function loadAll(commands: Commands): Promise<(readonly [name: string, command: Command])[]> {
  return Promise.all(Object.entries(commands).map(async ([name, load]) => [name, await load()] as const));
}

/** What exit codes mean. */
export const exitCodes: Readonly<Record<number, string>> = {
  0: "Success. What serves a device ends so by SIGTERM and SIGINT, too.",
  1: "Failure; the standard error says of what.",
  2: "The command line cannot be understood.",
};

/** Exit codes by number, with what they mean for a command. */
export function exitCodesOf(command: Command): (readonly [code: number, meaning: string])[] {
  return Object.entries({ ...exitCodes, ...command.exitCodes }).map(([code, text]) => [Number(code), text]);
}

/** A command line that cannot be understood. */
export class UsageError extends Error {
  /** The error's class name. */
  override readonly name = "UsageError";
}

/** Heading of options that do not name theirs. */
const SECTION = "Options";

/** Options that every command has. */
const COMMON: Options = {
  help: { short: "h", help: "Print this text." },
};

const CAPABILITIES: Option = {
  help: "Print what this program can do as JSON, and do nothing else.",
};

/** Puts options under a heading. */
export function underHeading(section: string, options: Options): Options {
  return Object.fromEntries(Object.entries(options).map(([name, option]) => [name, { section, ...option }]));
}

/** All options of a command, also those that every command has and those that lists leave out. */
export function optionsOf(command: Command): Options {
  return {
    ...command.options,
    ...(command.capabilities === undefined ? {} : { "print-capabilities": CAPABILITIES }),
    ...COMMON,
  };
}

/** The options of a command that are for people, by heading, in order. */
export function sectionsOf(command: Command): (readonly [heading: string, options: Options])[] {
  const sections = new Map<string, Record<string, Option>>([[SECTION, {}]]);
  for (const [name, option] of Object.entries(optionsOf(command))) {
    const { section = SECTION, hidden = false, deprecated } = option;
    if (hidden || deprecated !== undefined) continue;
    const options = sections.get(section) ?? {};
    options[name] = option;
    sections.set(section, options);
  }
  return [...sections];
}

/** An option as it is written in lists: `-h, --help`, `--fd=FDNUM`. */
export function spelling(name: string, { short, value }: Option): string {
  return `${short === undefined ? "" : `-${short}, `}--${name}${value === undefined ? "" : `=${value}`}`;
}

/** The words that stand for a command's argument in its synopsis. */
export function argumentWord({ name, optional = false }: Argument): string {
  return optional ? `[${name}]` : name;
}

/** The first sentence of a summary. */
export function firstSentence(summary: string): string {
  const [first] = summary.split(/\. |\.$/);
  return first.replaceAll("\n", " ");
}

/**
 * A whole number in a range.
 *
 * @throws {UsageError}
 */
export function wholeNumber(name: string, text: string, least: number, most: number): number {
  const number = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(number >= least && number <= most)) {
    throw new UsageError(`--${name} must be a whole number from ${least} to ${most}, got '${text}'`);
  }
  return number;
}

/**
 * Permission bits.
 *
 * @throws {UsageError}
 */
export function fileMode(name: string, text: string): number {
  if (!/^[0-7]{3,4}$/.test(text)) throw new UsageError(`--${name} must be octal, such as 660, got '${text}'`);
  return parseInt(text, 8);
}
