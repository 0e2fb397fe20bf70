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
import { type Command, type Output, runCommand } from "./command.ts";
import { version } from "./version.ts";

/** Commands by name. Each is loaded when it is asked for: a disk starts no sooner for what a network needs. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  blk: async () => (await import("./blk.ts")).blk,
  check: async () => (await import("./check.ts")).check,
  console: async () => (await import("./console.ts")).console,
  gpio: async () => (await import("./gpio.ts")).gpio,
  i2c: async () => (await import("./i2c.ts")).i2c,
  input: async () => (await import("./input.ts")).input,
  net: async () => (await import("./net.ts")).net,
  rng: async () => (await import("./rng.ts")).rng,
  rtc: async () => (await import("./rtc.ts")).rtc,
  run: async () => (await import("./run.ts")).run,
  scmi: async () => (await import("./scmi.ts")).scmi,
  scsi: async () => (await import("./scsi.ts")).scsi,
  sound: async () => (await import("./sound.ts")).sound,
  spi: async () => (await import("./spi.ts")).spi,
  trace: async () => (await import("./trace.ts")).trace,
  vsock: async () => (await import("./vsock.ts")).vsock,
};

async function overview(): Promise<string> {
  const all = await Promise.all(
    Object.entries(commands).map(async ([name, load]) => [name, await load()] as const),
  );
  const width = Math.max(...Object.keys(commands).map((name) => name.length)) + 2;
  return [
    "Usage: vhost-user <command> [options]",
    "",
    "Virtio devices for virtual machines, over a Unix socket.",
    "",
    "Commands:",
    ...all.map(([name, { summary }]) => `  ${name.padEnd(width)}${summary.split(". ")[0]}`),
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
    output.out(await overview());
    return 0;
  }
  const load = Object.hasOwn(commands, name ?? "") ? commands[name] : undefined;
  if (load === undefined) {
    output.error(name === undefined ? "vhost-user: which command?" : `vhost-user: no command '${name}'`);
    output.error("Try 'vhost-user --help'.");
    return 2;
  }
  return await runCommand(`vhost-user ${name}`, await load(), rest, output);
}

export type { Argument, Command, Option, Output, Permission, Values } from "./command.ts";

// As `import.meta.main`, dnt up to 0.40 makes something else of it.
const { main: isProgram } = import.meta;

if (isProgram) process.exit(await main(process.argv.slice(2)));
