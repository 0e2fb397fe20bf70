/**
 * The command line: `vhost-user <command> [options]`.
 *
 * ```sh
 * deno run --allow-ffi jsr:@vhost/user/cli blk --socket-path=/tmp/disk.sock --blk-file=disk.img
 * ```
 *
 * @module
 */

import process from "node:process";
import { blk } from "./blk.ts";
import { check } from "./check.ts";
import { type Command, type Output, runCommand } from "./command.ts";
import { net } from "./net.ts";
import { trace } from "./trace.ts";
import { version } from "./version.ts";

/** Commands by name. */
const commands: Readonly<Record<string, Command>> = { blk, check, net, trace };

function overview(): string {
  const width = Math.max(...Object.keys(commands).map((name) => name.length)) + 2;
  return [
    "Usage: vhost-user <command> [options]",
    "",
    "Virtio devices for virtual machines, over a Unix socket.",
    "",
    "Commands:",
    ...Object.entries(commands).map(([name, { summary }]) =>
      `  ${name.padEnd(width)}${summary.split(". ")[0]}`
    ),
    "",
    "  --help     Print this text; after a command, its options.",
    "  --version  Print the version.",
  ].join("\n");
}

const standard: Output = {
  out: (line) => void process.stdout.write(`${line}\n`),
  error: (line) => void process.stderr.write(`${line}\n`),
};

/**
 * Runs the command line.
 *
 * @param args without the program's name
 * @param output the standard output and error by default
 * @returns the exit code: 0 success, 1 failure, 2 a command line that cannot be understood
 */
export async function main(args: readonly string[], output: Output = standard): Promise<number> {
  const [name, ...rest] = args;
  if (name === "--version") {
    output.out(`vhost-user ${version}`);
    return 0;
  }
  if (name === "--help" || name === "help") {
    output.out(overview());
    return 0;
  }
  const command = Object.hasOwn(commands, name ?? "") ? commands[name] : undefined;
  if (command === undefined) {
    output.error(name === undefined ? "vhost-user: which command?" : `vhost-user: no command '${name}'`);
    output.error("Try 'vhost-user --help'.");
    return 2;
  }
  return await runCommand(`vhost-user ${name}`, command, rest, output);
}

export type { Argument, Command, Option, Output, Values } from "./command.ts";

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
