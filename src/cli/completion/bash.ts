/**
 * Completions for bash.
 *
 * @module
 */

import type { CompletedCommand, Offer } from "./words.ts";

/** What the script is told to offer. */
function offerText({ paths, words }: Offer): string {
  return `'${paths ?? words.join(" ")}'`;
}

/** The branch of a command: the names of its options, and what is offered for a value or the argument. */
function branch({ name, options, argument }: CompletedCommand): string[] {
  const byOffer = new Map<string, string[]>();
  for (const { name, value, offer } of options) {
    if (value === undefined) continue;
    const text = offerText(offer);
    byOffer.set(text, [...byOffer.get(text) ?? [], `--${name}`]);
  }
  const names = options.map(({ name, value }) => `--${name}${value === undefined ? "" : "="}`);
  return [
    `    ${name})`,
    `        names='${names.join(" ")}'`,
    ...argument === undefined ? [] : [`        offer=${offerText(argument.offer)}`],
    ...byOffer.size === 0 ? [] : [
      "        case $option in",
      ...[...byOffer].map(([text, names]) => `        ${names.join(" | ")}) valued=1 offer=${text} ;;`),
      "        esac",
    ],
    "        ;;",
  ];
}

/** The script. */
export function bashCompletions(program: string, commands: readonly CompletedCommand[]): string[] {
  const fn = `_${program.replaceAll("-", "_")}`;
  const names = commands.map(({ name }) => name).join(" ");
  return [
    `${fn}() {`,
    "    # To bash '=' and ':' end a word; here they are parts of one.",
    "    local -a words=()",
    "    local part glue=",
    '    for part in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do',
    "        if [[ $part == [=:]* ]]; then words[-1]+=$part glue=1",
    "        elif [[ $glue ]]; then words[-1]+=$part glue=",
    '        else words+=("$part"); fi',
    "    done",
    "    local word=${words[-1]} command= option= base= names= offer= valued=",
    "    ((${#words[@]} > 2)) && command=${words[1]}",
    "    case $word in",
    "    --*=*) option=${word%%=*} base=$option= ;;",
    "    -*) ;;",
    "    *) option=${words[-2]} ;;",
    "    esac",
    "    case $command in",
    `    '') names='--help --version' offer='${names} help' ;;`,
    `    help) offer='${names}' ;;`,
    ...commands.flatMap(branch),
    "    esac",
    "    if [[ ! $valued ]]; then",
    "        [[ $base ]] && return",
    "        [[ $word == -* ]] && offer=$names",
    "    fi",
    "    # What stands before the last '=' or ':' is not for bash to replace.",
    '    local value=${word#"$base"} current=${COMP_WORDS[COMP_CWORD]} scheme= kept each',
    "    [[ $current == [=:]* ]] && current=",
    '    kept=${word%"$current"}',
    "    if [[ $offer == *:* && $value == *:* ]]; then scheme=${value%%:*}: value=${value#*:} offer=file; fi",
    "    local -a found=()",
    "    case $offer in",
    "    file | directory)",
    "        compopt -o filenames",
    "        value=${value//\\\\/}",
    "        value=${value#[\\\"\\']}",
    '        mapfile -t found < <(compgen -"${offer:0:1}" -- "$value")',
    "        ;;",
    '    *) mapfile -t found < <(compgen -W "$offer" -- "$value") ;;',
    "    esac",
    "    COMPREPLY=()",
    '    for each in "${found[@]}"; do',
    "        each=$base$scheme$each",
    '        COMPREPLY+=("${each#"$kept"}")',
    "        [[ $each == *[=:] ]] && compopt -o nospace",
    "    done",
    "}",
    `complete -F ${fn} ${program}`,
  ];
}
