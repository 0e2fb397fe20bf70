/**
 * The command line: `vhost-user <command> [options]`.
 *
 * ```sh
 * deno run --allow-ffi jsr:@vhost/user/cli blk --socket-path=/tmp/disk.sock --blk-file=disk.img
 * ```
 *
 * @example The same from a program: its help
 * ```ts
 * import { main } from "@vhost/user/cli";
 *
 * let help = "";
 * const code = await main(["blk", "--help"], { out: (line) => help += line, error: console.error });
 * if (code !== 0 || !help.includes("--blk-file")) throw new Error(help);
 * ```
 *
 * @module
 */

import process from "node:process";
import { plain } from "../tools/paint.ts";
import { painter } from "./colour.ts";
import { firstSentence, loadAll, type Output } from "./command.ts";
import { commands } from "./commands.ts";
import { runCommand } from "./program.ts";
import { leave } from "./leave.ts";
import { didYouMean } from "./suggestion.ts";
import { version } from "./version.ts";

async function overview({ paint = plain }: Output): Promise<string> {
  const width = Math.max(...Object.keys(commands).map((name) => name.length)) + 2;
  return [
    `${paint("bold", "Usage:")} vhost-user <command> [options]`,
    "",
    "Virtio devices for virtual machines, over a Unix socket.",
    "",
    paint("bold", "Commands:"),
    ...(await loadAll(commands)).map(([name, { summary }]) =>
      `  ${paint("bold", name)}${" ".repeat(width - name.length)}${firstSentence(summary)}`
    ),
    "",
    paint("bold", "Options:"),
    "  -h, --help     Print this text; after a command, its options. So does 'vhost-user help [command]'.",
    "  -V, --version  Print the version.",
  ].join("\n");
}

const standard: Output = {
  out: (line) => void process.stdout.write(`${line}\n`),
  error: (line) => void process.stderr.write(`${line}\n`),
  paint: painter(process.stdout),
};

/**
 * Runs the command line.
 *
 * @param args without the program's name
 * @param output the standard output and error by default
 * @returns the exit code: 0 success, 1 failure, 2 a command line that cannot be understood
 */
export async function main(args: readonly string[], output: Output = standard): Promise<number> {
  const [first, ...others] = args;
  if (first === "--version" || first === "-V") {
    output.out(`vhost-user ${version}`);
    return 0;
  }
  if (first === "--help" || first === "-h" || (first === "help" && others.length === 0)) {
    output.out(await overview(output));
    return 0;
  }
  const [name, ...rest] = first === "help" ? [others[0], "--help"] : args;
  const load = Object.hasOwn(commands, name ?? "") ? commands[name] : undefined;
  if (load === undefined) {
    const known = [...Object.keys(commands), "help"];
    output.error(
      name === undefined
        ? "vhost-user: which command?"
        : name.startsWith("-")
        ? `vhost-user: no option '${name}' before the command${didYouMean(name, ["--help", "--version"])}`
        : `vhost-user: no command '${name}'${didYouMean(name, known)}`,
    );
    output.error("Try 'vhost-user --help'.");
    return 2;
  }
  return await runCommand(`vhost-user ${name}`, await load(), rest, output);
}

export type {
  Argument,
  Command,
  Deprecation,
  Option,
  Options,
  Output,
  Permission,
  Values,
} from "./command.ts";
export type { Paint, Style } from "../tools/paint.ts";

// As `import.meta.main`, dnt up to 0.40 makes something else of it.
const { main: isProgram } = import.meta;

if (isProgram) await leave(await main(process.argv.slice(2)));
