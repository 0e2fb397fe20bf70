/**
 * What shells offer on a command line, from the tables of the commands.
 *
 * @module
 */

import { type Argument, type Command, firstSentence, type Option, sectionsOf } from "../command.ts";

/** What is offered for a value. */
export interface Offer {
  /** Whether names of files, or of directories alone. */
  readonly paths?: "file" | "directory";
  /** Words. One that ends in a colon is a beginning, and the name of a file may follow it. */
  readonly words: readonly string[];
}

/** An option as shells see it. */
export interface CompletedOption {
  /** Its name, without dashes. */
  readonly name: string;
  /** One letter that stands for it. */
  readonly short: string | undefined;
  /** What it does, in a line. */
  readonly about: string;
  /** Whether it may be given several times. */
  readonly multiple: boolean;
  /** What its value is called; none for a switch. */
  readonly value: string | undefined;
  /** What is offered for the value. */
  readonly offer: Offer;
}

/** A command as shells see it. */
export interface CompletedCommand {
  /** Its name. */
  readonly name: string;
  /** What it does, in a line. */
  readonly about: string;
  /** Its options. */
  readonly options: readonly CompletedOption[];
  /** What it takes besides options, and what is offered for that. */
  readonly argument: { readonly name: string; readonly offer: Offer } | undefined;
}

function offerOf({ choices, offer }: Option | Argument): Offer {
  if (choices !== undefined) return { words: choices };
  return typeof offer === "string" ? { paths: offer, words: [] } : { words: offer ?? [] };
}

/** The commands as shells see them. */
export function completed(all: readonly (readonly [name: string, command: Command])[]): CompletedCommand[] {
  return all.map(([name, command]) => {
    const { argument, summary } = command;
    return {
      name,
      about: firstSentence(summary),
      options: sectionsOf(command).flatMap(([, options]) =>
        Object.entries(options).map(([name, option]) => ({
          name,
          short: option.short,
          about: firstSentence(option.help),
          multiple: option.multiple === true,
          value: option.value,
          offer: offerOf(option),
        }))
      ),
      argument: argument === undefined ? undefined : { name: argument.name, offer: offerOf(argument) },
    };
  });
}
