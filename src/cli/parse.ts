/**
 * Command lines, as the table of a command's options has them.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { type Argument, type Command, type Option, type Options, optionsOf, UsageError } from "./command.ts";
import { didYouMean } from "./suggestion.ts";

/** Alternatives in words. */
function either(words: readonly string[]): string {
  return [...words.slice(0, -2), words.slice(-2).join(" or ")].join(", ");
}

function checkChoice(what: string, { choices }: Option | Argument, value: string): void {
  if (choices === undefined || choices.includes(value)) return;
  throw new UsageError(`${what} must be ${either(choices)}, got '${value}'${didYouMean(value, choices)}`);
}

/** The names of options that are shown to people. */
function namesOf(options: Options): string[] {
  return Object.keys(options).filter((name) => !options[name].hidden && !options[name].deprecated);
}

/** A command line, read. */
export interface Parsed {
  /** Values of the options and of the argument by name: text, several of it, or `true` for a switch. */
  readonly values: Readonly<Record<string, string | readonly string[] | boolean | undefined>>;
  /** What its user should know. */
  readonly warnings: readonly string[];
}

/**
 * Reads a command line.
 *
 * @throws {UsageError}
 */
export function parseCommand(command: Command, args: readonly string[]): Parsed {
  const options = optionsOf(command);
  const { tokens } = parseArgs({
    args: [...args],
    options: Object.fromEntries(
      Object.entries(options).map(([name, { value, short }]) => [
        name,
        {
          type: value === undefined ? "boolean" : "string",
          ...short === undefined ? {} : { short },
        } as const,
      ]),
    ),
    // What is wrong is said here, in the same words under every runtime.
    strict: false,
    tokens: true,
  });
  const values: Record<string, string | string[] | boolean> = {};
  const warnings: string[] = [];
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const { rawName, inlineValue = false } = token;
    if (!Object.hasOwn(options, token.name)) {
      const meant = rawName.startsWith("--") ? didYouMean(token.name, namesOf(options), "--") : "";
      throw new UsageError(`no option '${rawName}'${meant}`);
    }
    const option = options[token.name];
    if (option.value === undefined && token.value !== undefined) {
      throw new UsageError(`${rawName} takes no value, got '${token.value}'`);
    }
    if (option.value !== undefined && token.value === undefined) {
      throw new UsageError(`${rawName} needs a value: ${rawName}=${option.value}`);
    }
    const value = token.value ?? true;
    if (typeof value === "string") {
      if (!inlineValue && /^-./.test(value)) {
        throw new UsageError(
          `${rawName} needs a value, and '${value}' may be an option; if not, say ${rawName}=${value}`,
        );
      }
      checkChoice(rawName, option, value);
    }
    const { deprecated } = option;
    let { name } = token;
    if (deprecated !== undefined) {
      const { since, renamedTo, advice } = deprecated;
      const instead = renamedTo === undefined ? advice ?? "it has no effect" : `use --${renamedTo}`;
      warnings.push(`${rawName} is deprecated since ${since} and will go: ${instead}`);
      name = renamedTo ?? name;
    }
    const before = values[name];
    if (options[name].multiple !== true || typeof value !== "string") values[name] = value;
    else values[name] = [...Array.isArray(before) ? before : [], value];
  }
  return { values: { ...values, ...argumentValue(command.argument, positionals) }, warnings };
}

function argumentValue(argument: Argument | undefined, given: readonly string[]): Record<string, string> {
  const [value, ...more] = given;
  if (argument === undefined) {
    if (value !== undefined) throw new UsageError(`what is '${value}'? There are only options`);
    return {};
  }
  if (more.length > 0) throw new UsageError(`one ${argument.name}, got ${given.join(" and ")}`);
  if (value === undefined) {
    if (argument.optional !== true) throw new UsageError(`which ${argument.name}?`);
    return {};
  }
  checkChoice(argument.name, argument, value);
  return { [argument.name]: value };
}
