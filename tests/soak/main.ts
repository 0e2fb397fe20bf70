/** `deno task soak [--minutes=N] [--seed=N] [--devices=LIST]` */

import process from "node:process";
import { type Command, UsageError } from "../../src/cli/command.ts";
import { runCommand } from "../../src/cli/program.ts";
import { anySeed, soak } from "./run.ts";

const command: Command = {
  summary:
    "Front-ends that come, work, pause, move, reset and go at random, on all devices, with their data verified.",
  options: {
    minutes: { value: "N", help: "How long (default 2)." },
    seed: { value: "N", help: "Of the random choices (default: another each time)." },
    devices: { value: "LIST", help: "Names of devices, with commas (default all)." },
  },
  examples: [["deno task soak --minutes=60", "An hour of it."]],
  run: async (values, output) => {
    const minutes = Number(values.minutes ?? 2);
    const seed = Number(values.seed ?? anySeed());
    if (!(minutes > 0)) throw new UsageError(`--minutes must be more than 0, got '${values.minutes}'`);
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new UsageError(`--seed must be a whole number, got '${values.seed}'`);
    }
    output.out(`soak: ${minutes} minutes, seed ${seed}`);
    const ends: (() => void | Promise<void>)[] = [];
    try {
      const { done, holdings } = await soak({ after: (fn) => void ends.push(fn) }, {
        time: minutes * 60_000,
        seed,
        devices: values.devices === undefined ? undefined : String(values.devices).split(","),
        onProgress: output.out,
      });
      output.out("soak: nothing went wrong");
      for (const [what, count] of Object.entries(done)) output.out(`  ${String(count).padStart(9)} ${what}`);
      output.out(`  ${holdings.summary}`);
      return 0;
    } finally {
      for (const end of ends) await end();
    }
  },
};

process.exit(
  await runCommand("deno task soak", command, process.argv.slice(2), {
    out: (line) => void process.stdout.write(`${line}\n`),
    error: (line) => void process.stderr.write(`${line}\n`),
  }),
);
