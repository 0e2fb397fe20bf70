/**
 * Commands and their options, as data: parsing, help and documentation come from the same table.
 *
 * @module
 */

import { parseArgs } from "node:util";

/** An option of a command. */
export interface Option {
  /** What its value is, in capitals; absent for a switch. */
  readonly value?: string;
  /** Whether it may be given several times; its values are a list then. */
  readonly multiple?: boolean;
  /** What it does, and its default. */
  readonly help: string;
}

/** Where a command writes. */
export interface Output {
  /** A line of the result. */
  out(line: string): void;
  /** A line for people about what happens. */
  error(line: string): void;
}

/** Values of the options by name: text, several of it, or `true` for a switch. */
export type Values = Readonly<Record<string, string | readonly string[] | boolean | undefined>>;

/** What stands on a command line without a name. */
export interface Argument {
  /** What it is; its value goes by this name. */
  readonly name: string;
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
  /** What it does, in a line. */
  readonly summary: string;
  /** What it takes besides options. */
  readonly argument?: Argument;
  /** Options by name. */
  readonly options: Readonly<Record<string, Option>>;
  /** Command lines with what they do. */
  readonly examples: readonly (readonly [command: string, meaning: string])[];
  /** What of Deno's permissions it needs, and for what; nothing but `--allow-ffi` by default. */
  readonly permissions?: readonly Permission[];
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

/** A command line that cannot be understood. */
export class UsageError extends Error {
  /** The error's class name. */
  override readonly name = "UsageError";
}

/** Options that every command has. */
const COMMON: Readonly<Record<string, Option>> = {
  help: { help: "Print this text." },
};

const CAPABILITIES: Option = {
  help: "Print what this program can do as JSON, and do nothing else.",
};

function optionsOf(command: Command): Readonly<Record<string, Option>> {
  return {
    ...command.options,
    ...(command.capabilities === undefined ? {} : { "print-capabilities": CAPABILITIES }),
    ...COMMON,
  };
}

/** The text of `--help`. */
export function helpText(program: string, command: Command): string {
  const { argument, permissions = [] } = command;
  const word = argument === undefined
    ? ""
    : argument.optional === true
    ? ` [${argument.name}]`
    : ` ${argument.name}`;
  const left = Object.entries(optionsOf(command)).map(([name, { value, help }]) =>
    [value === undefined ? `--${name}` : `--${name}=${value}`, help] as const
  );
  const width = Math.max(...left.map(([text]) => text.length)) + 2;
  return [
    `Usage: ${program}${word} [options]`,
    "",
    command.summary,
    "",
    ...argument === undefined ? [] : [`  ${argument.name.padEnd(width)}${argument.help}`, ""],
    "Options:",
    ...left.map(([text, help]) =>
      `  ${text.padEnd(width)}${help.replaceAll("\n", `\n  ${" ".repeat(width)}`)}`
    ),
    "",
    `Permissions of Deno: --allow-ffi${permissions.length === 0 ? "" : ", and for"}`,
    ...permissions.flatMap(({ flags, when }) => [`  ${when}`, `      ${flags.join(" ")}`]),
    "",
    "Examples:",
    ...command.examples.flatMap(([line, meaning]) => [`  ${line}`, `      ${meaning}`]),
  ].join("\n");
}

/**
 * Parses and runs.
 *
 * @param program the words that name the command, such as `"vhost-user blk"`
 * @returns the exit code: 0 success, 1 failure, 2 a command line that cannot be understood
 */
export async function runCommand(
  program: string,
  command: Command,
  args: readonly string[],
  output: Output,
): Promise<number> {
  // By convention this excludes everything else, also options that do not exist.
  if (command.capabilities !== undefined && args.includes("--print-capabilities")) {
    output.out(JSON.stringify(command.capabilities));
    return 0;
  }
  if (args.includes("--help")) {
    output.out(helpText(program, command));
    return 0;
  }
  try {
    const options = Object.fromEntries(
      Object.entries(optionsOf(command)).map(([name, { value, multiple = false }]) =>
        [name, { type: value === undefined ? "boolean" : "string", multiple }] as const
      ),
    );
    const { argument } = command;
    const allowPositionals = argument !== undefined;
    const { values, positionals } = parseArgs({ args: [...args], options, strict: true, allowPositionals });
    if (positionals.length > 1) {
      throw new UsageError(`one ${argument?.name}, got ${positionals.join(" and ")}`);
    }
    if (argument !== undefined && argument.optional !== true && positionals.length === 0) {
      throw new UsageError(`which ${argument.name}?`);
    }
    const given = argument === undefined ? {} : { [argument.name]: positionals[0] };
    return await command.run({ ...values as Values, ...given }, output);
  } catch (error) {
    const usage = error instanceof UsageError ||
      (error as { code?: string }).code?.startsWith("ERR_PARSE_ARGS");
    output.error(`${program}: ${error instanceof Error ? error.message : error}`);
    if (usage) output.error(`Try '${program} --help'.`);
    return usage ? 2 : 1;
  }
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
