import assert from "node:assert/strict";
import process from "node:process";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { run as runProgram } from "../support/process.ts";
import { startWords } from "../support/runtime.ts";
import { commandLine, type Failure, repeat, run, type Success } from "./campaign.ts";
import type { Order } from "./report.ts";
import { targets } from "./targets.ts";

/** Of the runs in continuous integration. */
const SEED = 1;
/** In so many processes at once. */
const SHARES = 2;

for (const target of targets) {
  const { name, cases, unit, least } = target;
  test(`${name}: ${cases} cases of a fixed seed`, { timeout: 1_200_000 }, async (t) => {
    const share = Math.ceil(cases / SHARES);
    const outcomes = await Promise.all(
      Array.from(
        { length: SHARES },
        (_, i) => run(t, { target: name, seed: SEED, from: i * share, cases: share }),
      ),
    );
    const failure = outcomes.find((outcome): outcome is Failure => "text" in outcome);
    if (failure !== undefined) {
      assert.fail(
        `${failure.text}\n\nTo see it again, with fewer steps:\n` +
          commandLine({ target: name, seed: SEED, from: failure.index, cases: 1 }),
      );
    }
    const all = outcomes as Success[];
    const units = all.reduce((sum, outcome) => sum + outcome.units, 0);
    const grown = all.map((outcome) => `${Math.round(outcome.grown / 2 ** 20)} MiB`);
    t.diagnostic(
      `${units.toLocaleString("en")} ${unit}; ${all.map(({ notes }) => notes).join("; ")}; memory ${grown}`,
    );
    assert.ok(units >= least, `${units} ${unit}, at least ${least} are expected`);
  });
}

const PLANTED = new URL("planted.ts", import.meta.url).href;

function orderOf(mistake: string, more: Partial<Order> = {}): Order {
  return {
    target: "planted",
    module: `${PLANTED}?${mistake}`,
    seed: 3,
    from: 0,
    cases: 200,
    ...more,
  };
}

for (
  const [mistake, said, more] of [
    ["throw", /Error: planted/],
    ["late", /planted, where nobody listens/],
    ["crash", /ended with status 139/],
    ["hang", /did not end within 2 s/, { limit: 2000 }],
    ["descriptor", /something was left: \d+ descriptors.*eventfd/],
    ["mapping", /something was left: .*mappings.*planted/],
    ["timer", /something was left: .*timers/],
  ] as readonly (readonly [string, RegExp, Partial<Order>?])[]
) {
  test(`a mistake by ${mistake} is found`, { timeout: 120_000 }, async (t) => {
    const outcome = await run(t, orderOf(mistake, { patience: 300, ...more }));
    assert.ok("text" in outcome, "it is found");
    assert.match(outcome.text, said);
  });
}

for (
  const [mistake, said] of [
    ["twice", /request on ring 0 failed: RangeError: Offset is outside the bounds/],
    ["secret", /what another guest has sent is in this one's memory/],
  ] as const
) {
  test(`memory that changes finds a mistake by ${mistake}`, { timeout: 300_000 }, async (t) => {
    const module = `${new URL("race/planted.ts", import.meta.url).href}?${mistake}`;
    const outcome = await run(t, { ...orderOf(mistake), module, cases: 200 });
    assert.ok("text" in outcome, "it is found");
    assert.match(outcome.text, said);
  });
}

for (const mistake of ["throw", "hang"]) {
  test(`a mistake by ${mistake} is repeated and made small`, { timeout: 300_000 }, async (t) => {
    const order = orderOf(mistake, { limit: 2000 });
    const outcome = await run(t, order);
    assert.ok("text" in outcome, "it is found");
    const { default: target } = await import(order.module as string);
    const small = await repeat(t, target, order, outcome, () => {});
    assert.ok(small.again);
    assert.deepEqual(small.steps.map((step) => step.split(": ")[1]), ["17", "42"]);
    const { index } = outcome;
    const command = `^deno task fuzz planted --seed=3 --from=${index} --iterations=1 --steps=\\d+,\\d+$`;
    assert.match(commandLine(small.order), new RegExp(command));
  });
}

test(
  "a mistake that takes two cases is repeated with the cases before it",
  { timeout: 120_000 },
  async (t) => {
    const order = orderOf("history", { cases: 2000 });
    const outcome = await run(t, order);
    assert.ok("text" in outcome, "it is found");
    const { default: target } = await import(order.module as string);
    const small = await repeat(t, target, order, outcome, () => {});
    assert.ok(small.again);
    assert.ok(
      small.order.from < outcome.index && small.order.from + (small.order.cases ?? 0) === outcome.index + 1,
    );
    assert.match(small.text, /for the second time/);
  },
);

test("memory that grows is found", { timeout: 120_000 }, async (t) => {
  const outcome = await run(t, orderOf("memory", { cases: 10_000, lookEvery: 20 }));
  assert.ok("text" in outcome, "it is found");
  assert.match(outcome.text, /scripts need \d+ bytes/);
});

test("without a mistake all cases are well", { timeout: 60_000 }, async (t) => {
  const outcome = await run(t, orderOf("none"));
  assert.ok(!("text" in outcome), JSON.stringify(outcome));
  assert.deepEqual([outcome.cases, outcome.units], [200, 3200]);
});

/** `deno task fuzz`. */
async function fuzz(...args: string[]): Promise<{ code: number; text: string }> {
  const main = fileURLToPath(new URL("main.ts", import.meta.url));
  const options = { check: false, timeout: 120_000, env: { NO_COLOR: "1" } };
  const { code, stdout, stderr } = await runProgram(
    process.execPath,
    startWords(["--allow-all", "--no-check"], [main, ...args]),
    options,
  );
  return { code, text: stdout + stderr };
}

test(
  "the command line lists targets, runs some, and says what it does not understand",
  { timeout: 120_000 },
  async () => {
    const list = await fuzz("--list");
    for (const { name } of targets) assert.match(list.text, new RegExp(`^${name} `, "m"));
    const { code, text } = await fuzz(
      "front-end",
      "--seed=5",
      "--from=3",
      "--iterations=2",
      "--steps=0,1,2,3,4,5",
    );
    assert.equal(code, 0, text);
    assert.match(text, /^front-end: seed 5, 2 cases, \d+ messages, .*; all well$/m);
    for (
      const [args, said] of [
        [["nothing"], /no target 'nothing'/],
        [["--seed=x"], /--seed must be a whole number/],
        [["--steps=1,x"], /--steps must be a whole number/],
        [["--wrong"], /--wrong/],
      ] as const
    ) {
      const refused = await fuzz(...args);
      assert.equal(refused.code, 2, refused.text);
      assert.match(refused.text, said);
    }
  },
);
