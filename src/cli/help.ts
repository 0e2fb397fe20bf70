/**
 * The text of `--help`.
 *
 * @module
 */

import { type Paint, plain } from "../tools/paint.ts";
import { argumentWord, type Command, exitCodesOf, sectionsOf, spelling } from "./command.ts";

/** A text in lines that all begin in one column. */
function hanging(text: string, column: number): string {
  return text.replaceAll("\n", `\n${" ".repeat(column)}`);
}

/**
 * The text of `--help`.
 *
 * @param program the words that name the command
 */
export function helpText(program: string, command: Command, paint: Paint = plain): string {
  const { argument, permissions = [] } = command;
  const sections = sectionsOf(command).map(([heading, options]) =>
    [heading, Object.entries(options).map(([name, option]) => [spelling(name, option), option.help])] as const
  );
  const width = Math.max(...sections.flatMap(([, rows]) => rows.map(([left]) => left.length))) + 2;
  const row = (left: string, right: string): string =>
    `  ${paint("bold", left)}${" ".repeat(Math.max(2, width - left.length))}${hanging(right, width + 2)}`;
  return [
    `${paint("bold", "Usage:")} ${program}${
      argument === undefined ? "" : ` ${argumentWord(argument)}`
    } [options]`,
    "",
    command.summary,
    "",
    ...argument === undefined ? [] : [row(argument.name, argument.help), ""],
    ...sections.flatMap(([heading, rows]) => [
      paint("bold", `${heading}:`),
      ...rows.map(([left, right]) => row(left, right)),
      "",
    ]),
    `${paint("bold", "Permissions of Deno:")} --allow-ffi${permissions.length === 0 ? "" : ", and for"}`,
    ...permissions.flatMap(({ flags, when }) => [`  ${when}`, `      ${flags.join(" ")}`]),
    "",
    paint("bold", "Exit status:"),
    ...exitCodesOf(command).map(([code, meaning]) => `  ${String(code).padStart(3)}  ${hanging(meaning, 7)}`),
    "",
    paint("bold", "Examples:"),
    ...command.examples.flatMap(([line, meaning]) => [`  ${line}`, `      ${hanging(meaning, 6)}`]),
  ].join("\n");
}
