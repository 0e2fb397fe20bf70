/**
 * Completions for fish.
 *
 * @module
 */

import type { CompletedCommand, CompletedOption, Offer } from "./words.ts";

/** A word of the shell. */
function quoted(text: string): string {
  return `'${text.replace(/[\\']/g, "\\$&")}'`;
}

/** How `complete` finds values: from words, files or nothing, and after a beginning, files. */
function values({ paths, words }: Offer): string {
  const files = paths === "file" || words.some((word) => word.endsWith(":"));
  const list = paths === "directory" ? "(__fish_complete_directories)" : words.join(" ");
  return `${files ? "-F" : "-f"}${list === "" ? "" : ` -a ${quoted(list)}`}`;
}

function optionLine(start: string, { name, short, about, value, offer }: CompletedOption): string {
  const names = `${short === undefined ? "" : ` -s ${short}`} -l ${name}`;
  return `${start}${names}${value === undefined ? "" : ` -r ${values(offer)}`} -d ${quoted(about)}`;
}

/** The script. */
export function fishCompletions(program: string, commands: readonly CompletedCommand[]): string[] {
  const start = `complete -c ${program}`;
  const fn = `__${program.replaceAll("-", "_")}_at`;
  const at = (command: string): string => `${start} -n '${fn} ${command}'`;
  const none = `${start} -n ${fn}`;
  return [
    "# Whether this is the command; without one, whether none has been named yet.",
    `function ${fn}`,
    "    set -l words (commandline -opc)",
    '    test "$words[2]" = "$argv[1]"',
    "end",
    "",
    `${start} -f`,
    `${none} -s h -l help -d ${quoted("Print the commands.")}`,
    `${none} -s V -l version -d ${quoted("Print the version.")}`,
    `${none} -a help -d ${quoted("Print the help of a command")}`,
    ...commands.map(({ name, about }) => `${none} -a ${name} -d ${quoted(about)}`),
    ...commands.map(({ name, about }) => `${at("help")} -a ${name} -d ${quoted(about)}`),
    ...commands.flatMap(({ name, options, argument }) => [
      "",
      ...argument === undefined ? [] : [`${at(name)} ${values(argument.offer)}`],
      ...options.map((option) => optionLine(at(name), option)),
    ]),
  ];
}
