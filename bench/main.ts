/** `deno task bench [blk|net|guest-net|vsock|ring|wake|start|memory] [options]` */

import process from "node:process";
import type { Output } from "../src/cli/command.ts";
import { runCommand } from "../src/cli/program.ts";
import { type Bench, commandOf } from "./bench.ts";
import { blk } from "./blk.ts";
import { memory } from "./memory.ts";
import { net } from "./net.ts";
import { ring } from "./ring.ts";
import { start } from "./start.ts";
import { guestNet } from "./guest_net.ts";
import { vsock } from "./vsock.ts";
import { wake } from "./wake.ts";

/** Benches by name; the first runs when none is named. */
const benches: Readonly<Record<string, Bench>> = {
  blk,
  net,
  "guest-net": guestNet,
  vsock,
  ring,
  wake,
  start,
  memory,
};

const PROGRAM = "deno task bench";

function overview(): string {
  const width = Math.max(...Object.keys(benches).map((name) => name.length)) + 2;
  return [
    `Usage: ${PROGRAM} [bench] [options]`,
    "",
    "Measures this toolkit, and other programs that do the same in the same run. Nothing else should run meanwhile.",
    "",
    `Benches (default ${Object.keys(benches)[0]}):`,
    ...Object.entries(benches).map(([name, { summary }]) => `  ${name.padEnd(width)}${summary}`),
    "",
    "  --help     Print this text; after a bench, its options.",
    "",
    "docs/speed.md says what the figures mean.",
  ].join("\n");
}

const standard: Output = {
  out: (line) => void process.stdout.write(`${line}\n`),
  error: (line) => void process.stderr.write(`${line}\n`),
};

async function main(args: readonly string[]): Promise<number> {
  if (args[0] === "--help") {
    standard.out(overview());
    return 0;
  }
  const named = args.length > 0 && !args[0].startsWith("-");
  const name = named ? args[0] : Object.keys(benches)[0];
  if (!Object.hasOwn(benches, name)) {
    standard.error(`bench: no bench '${name}'; there are ${Object.keys(benches).join(", ")}`);
    return 2;
  }
  return await runCommand(
    `${PROGRAM} ${name}`,
    commandOf(name, benches[name]),
    args.slice(named ? 1 : 0),
    standard,
  );
}

process.exitCode = await main(process.argv.slice(2));
