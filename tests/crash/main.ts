/** `deno task crash [options]`: kills back-ends, or front-ends, for as long as it is told to. */

import process from "node:process";
import { type Command, type Output, wholeNumber } from "../../src/cli/command.ts";
import { runCommand } from "../../src/cli/program.ts";
import type { Scope } from "../support/cleanup.ts";
import { Random } from "../support/random.ts";
import { killBackends } from "./backend_kills.ts";
import { killFrontEnds } from "./frontend_kills.ts";
import { nameOf, type Setting } from "./setting.ts";

/** Kills of one image and one front-end before the next setting is tried. */
const ROUND = 25;

function settingOf(random: Random): Setting {
  return {
    packed: random.pick([false, true]),
    inOrder: random.pick([false, true]),
    recorded: random.pick([true, true, false]),
    aio: random.pick(["io_uring", "sync"]),
    workers: random.pick([undefined, 1, 2, 4]),
  };
}

const crash: Command = {
  summary:
    "Kills back-ends (SIGKILL) while their disk is written to, starts others in their place, and checks that no\n" +
    "write that was acknowledged is lost and none is done after a later one. docs/durability.md says more.",
  options: {
    frontends: { help: "Kill front-ends instead: the back-end must serve the next." },
    kills: { value: "N", help: "How many to kill in all (default 1000)." },
    seed: {
      value: "N",
      help: "Start of the random numbers; the same seed makes the same choices (default: any).",
    },
  },
  examples: [
    ["deno task crash", "A thousand kills, in a few minutes."],
    ["deno task crash --kills=100000 --seed=1", "Over night."],
  ],
  run: async (values, output) => {
    const kills = wholeNumber("kills", String(values.kills ?? 1000), 1, 1_000_000_000);
    const seed = wholeNumber(
      "seed",
      String(values.seed ?? Math.floor(Math.random() * 2 ** 32)),
      0,
      2 ** 32 - 1,
    );
    output.out(`seed ${seed}`);
    const random = new Random(seed);
    const kill = values.frontends === true ? killFrontEnds : killBackends;
    let done = 0;
    let inFlight = 0;
    while (done < kills) {
      const setting = settingOf(random);
      const part = await scoped((scope) => kill(scope, random, setting, Math.min(ROUND, kills - done)));
      done += part.kills;
      inFlight += part.inFlight;
      output.out(`${done} of ${kills} kills survived, ${inFlight} writes in flight; ${nameOf(setting)}`);
    }
    return 0;
  },
};

/** Runs something, and undoes what it has left. */
async function scoped<T>(act: (scope: Scope) => Promise<T>): Promise<T> {
  const ends: (() => void | Promise<void>)[] = [];
  try {
    return await act({ after: (end) => void ends.push(end) });
  } finally {
    for (const end of ends) await end();
  }
}

const standard: Output = {
  out: (line) => void process.stdout.write(`${line}\n`),
  error: (line) => void process.stderr.write(`${line}\n`),
};

process.exitCode = await runCommand("deno task crash", crash, process.argv.slice(2), standard);
