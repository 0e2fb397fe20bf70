/**
 * Completions for zsh.
 *
 * @module
 */

import type { CompletedCommand, CompletedOption, Offer } from "./words.ts";

/** A word of the shell. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A text in a specification for `_arguments`, where brackets and colons mean something. */
function escaped(text: string): string {
  return text.replace(/[\\[\]:]/g, "\\$&");
}

/** How `_arguments` finds values. */
function action(fn: string, { paths, words }: Offer): string {
  if (paths !== undefined) return paths === "file" ? "_files" : "_files -/";
  if (words.length === 0) return " ";
  const list = words.map(escaped).join(" ");
  return words.some((word) => word.endsWith(":")) ? `{${fn}_beginnings ${list}}` : `(${list})`;
}

/** An option for `_arguments`. */
function specifications(
  fn: string,
  { name, short, about, multiple, value, offer }: CompletedOption,
): string[] {
  const tail = `[${escaped(about)}]${value === undefined ? "" : `:${escaped(value)}:${action(fn, offer)}`}`;
  const long = `--${name}${value === undefined ? "" : "="}`;
  if (short === undefined) return [quoted(`${multiple ? "*" : ""}${long}${tail}`)];
  const both = `(-${short} --${name})`;
  return [quoted(`${both}-${short}${tail}`), quoted(`${both}${long}${tail}`)];
}

/** The branch of a command. */
function branch(fn: string, { name, options, argument }: CompletedCommand): string[] {
  const all = [
    ...options.flatMap((each) => specifications(fn, each)),
    ...argument === undefined ? [] : [quoted(`1:${escaped(argument.name)}:${action(fn, argument.offer)}`)],
  ];
  return [
    `        ${name})`,
    "            _arguments \\",
    all.map((each) => `                ${each}`).join(" \\\n"),
    "            ;;",
  ];
}

/** The script. */
export function zshCompletions(program: string, commands: readonly CompletedCommand[]): string[] {
  const fn = `_${program.replaceAll("-", "_")}`;
  return [
    `#compdef ${program}`,
    "",
    "# Beginnings of values; the name of a file may follow one.",
    `${fn}_beginnings() {`,
    "    if compset -P '*:'; then",
    "        _files",
    "    else",
    "        compadd -S '' -- ${(M)@:#*:}",
    "        compadd -- ${@:#*:}",
    "    fi",
    "}",
    "",
    `${fn}() {`,
    "    local context state state_descr line curcontext=$curcontext",
    "    local -a commands=(",
    ...commands.map(({ name, about }) => `        ${quoted(`${name}:${escaped(about)}`)}`),
    "    )",
    "    _arguments -C \\",
    "        '(-h --help)'{-h,--help}'[Print the commands.]' \\",
    "        '(-V --version)'{-V,--version}'[Print the version.]' \\",
    "        '1: :->command' '*:: :->rest'",
    "    case $state in",
    "    command) _describe -t commands command commands -- '(help:Print\\ the\\ help\\ of\\ a\\ command)' ;;",
    "    rest)",
    `        curcontext=\${curcontext%:*:*}:${program}-\$words[1]:`,
    "        case $words[1] in",
    "        help) _arguments '1: :{_describe -t commands command commands}' ;;",
    ...commands.flatMap((each) => branch(fn, each)),
    "        esac",
    "        ;;",
    "    esac",
    "}",
    "",
    "# Loaded by its name, or read from a file.",
    `if [[ $funcstack[1] == _${program} ]]; then ${fn} "$@"; else compdef ${fn} ${program}; fi`,
  ];
}
