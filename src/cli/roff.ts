/**
 * Manual pages, from the tables of the commands. The language is roff with the macros of man(7).
 *
 * @module
 */

import { argumentWord, type Command, exitCodes, exitCodesOf, firstSentence, sectionsOf } from "./command.ts";
import { version } from "./version.ts";

/** A page. */
export interface Page {
  /** The name of its file. */
  readonly file: string;
  /** What is in it. */
  readonly lines: readonly string[];
}

/** Characters that roff would make something else of, and what it is told instead. */
const ESCAPES: Readonly<Record<string, string>> = {
  "\\": "\\e",
  "-": "\\-",
  "'": "\\(aq",
  "`": "\\(ga",
  "^": "\\(ha",
  "~": "\\(ti",
  '"': "\\(dq",
};

/** A text as it stands, whatever is in it. */
export function escaped(text: string): string {
  const plain = text.replace(/[\\'`^~"-]/g, (each) => ESCAPES[each]).replace(
    /[^\n -~]/gu,
    (each) => `\\[u${each.codePointAt(0)?.toString(16).toUpperCase().padStart(4, "0")}]`,
  );
  return plain.replace(/^\./gm, "\\&.");
}

/** Texts of this package, whose lines are filled anew. */
function filled(text: string): string {
  // A sentence begins a line, so that what stands behind its stop is up to roff.
  return escaped(text.replaceAll("\n", " ").replace(/\. (?=[A-Z])/g, ".\n"));
}

function bold(text: string): string {
  return `\\fB${escaped(text)}\\fR`;
}

function italic(text: string): string {
  return `\\fI${escaped(text)}\\fR`;
}

/** A term and what it means. */
function item(term: string, text: string): string[] {
  return [".TP", term, text];
}

function head(name: string, about: string): string[] {
  return [
    `.TH ${escaped(name.toUpperCase())} 1 "" "vhost\\-user ${escaped(version)}" "User Commands"`,
    // Lines of options are long words, which are not spread over the line.
    ".ad l",
    ".nh",
    ".SH NAME",
    `${escaped(name)} \\- ${escaped(about[0].toLowerCase() + about.slice(1))}`,
  ];
}

function references(names: readonly string[]): string {
  return names.map((name) => `${bold(name)}(1)`).join(", ");
}

/** A command line, whose lines end as they do, and under it what it does. */
function example([line, meaning]: readonly [string, string]): string[] {
  return [".PP", ".EX", escaped(line), ".EE", ".RS 4", filled(meaning), ".RE"];
}

/** The page of a command. */
export function commandPage(name: string, command: Command): Page {
  const { argument, permissions = [] } = command;
  const title = `vhost-user-${name}`;
  const [own, ...more] = sectionsOf(command).map(([heading, options]) =>
    [
      heading,
      Object.entries(options).flatMap(([name, { short, value, help }]) =>
        item(
          `${short === undefined ? "" : `${bold(`-${short}`)}, `}${bold(`--${name}`)}` +
            `${value === undefined ? "" : `=${italic(value)}`}`,
          filled(help),
        )
      ),
    ] as const
  );
  return {
    file: `${title}.1`,
    lines: [
      ...head(title, firstSentence(command.summary)),
      ".SH SYNOPSIS",
      `${bold(`vhost-user ${name}`)}${argument === undefined ? "" : ` ${italic(argumentWord(argument))}`} ` +
      `[${italic("options")}]`,
      ".SH DESCRIPTION",
      filled(command.summary),
      ...argument === undefined ? [] : item(italic(argument.name), filled(argument.help)),
      ".SH OPTIONS",
      ...own[1],
      ...more.flatMap(([heading, items]) => [`.SS ${escaped(heading)}`, ...items]),
      ".SH PERMISSIONS OF DENO",
      `${bold("--allow-ffi")}${permissions.length === 0 ? "." : ", and for"}`,
      ...permissions.flatMap(({ flags, when }) => item(escaped(when), bold(flags.join(" ")))),
      ".SH EXIT STATUS",
      ...exitCodesOf(command).flatMap(([code, meaning]) => item(bold(String(code)), filled(meaning))),
      ".SH EXAMPLES",
      ...command.examples.flatMap(example).slice(1),
      ".SH SEE ALSO",
      references(["vhost-user"]),
    ],
  };
}

/** The page of the program. */
export function programPage(all: readonly (readonly [name: string, command: Command])[]): Page {
  return {
    file: "vhost-user.1",
    lines: [
      ...head("vhost-user", "Virtio devices for virtual machines, over a Unix socket"),
      ".SH SYNOPSIS",
      `${bold("vhost-user")} ${italic("command")} [${italic("options")}]`,
      ".br",
      `${bold("vhost-user help")} [${italic("command")}]`,
      ".SH DESCRIPTION",
      filled(
        "A front-end such as QEMU hands a device of a virtual machine to this program, by the vhost-user protocol. " +
          "Each command has a page of its own.",
      ),
      ".SH COMMANDS",
      ...all.flatMap(([name, { summary }]) => item(bold(name), `${escaped(firstSentence(summary))}.`)),
      ".SH OPTIONS",
      ...item(
        `${bold("-h")}, ${bold("--help")}`,
        filled("Print the commands; after a command, its options."),
      ),
      ...item(`${bold("-V")}, ${bold("--version")}`, filled("Print the version.")),
      ".SH EXIT STATUS",
      ...Object.entries(exitCodes).flatMap(([code, meaning]) => item(bold(code), filled(meaning))),
      ".SH ENVIRONMENT",
      ...item(
        bold("NO_COLOR"),
        filled("Not empty: print no colours, which otherwise go to terminals alone."),
      ),
      ...item(
        bold("FORCE_COLOR"),
        filled("Print colours also where there is no terminal; with 0 or false none. It overrides NO_COLOR."),
      ),
      ".SH SEE ALSO",
      references(all.map(([name]) => `vhost-user-${name}`)),
    ],
  };
}
