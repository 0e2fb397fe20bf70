import assert from "node:assert/strict";
import { join } from "node:path";
import process from "node:process";
import test from "node:test";
import { painter, wantsColour } from "../../src/cli/colour.ts";
import { root, startCommand } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { startWords } from "../support/runtime.ts";
import { Terminal } from "../support/terminal.ts";

test("terminals alone get colours, but for what the variables say", () => {
  const rows: [isTTY: boolean | undefined, variables: Record<string, string>, boolean][] = [
    [true, {}, true],
    [false, {}, false],
    [undefined, {}, false],
    [true, { NO_COLOR: "1" }, false],
    [true, { NO_COLOR: "0" }, false],
    [true, { NO_COLOR: "" }, true],
    [false, { FORCE_COLOR: "1" }, true],
    [false, { FORCE_COLOR: "" }, true],
    [true, { FORCE_COLOR: "0" }, false],
    [true, { FORCE_COLOR: "false" }, false],
    [false, { FORCE_COLOR: "1", NO_COLOR: "1" }, true],
    [true, { FORCE_COLOR: "0", NO_COLOR: "" }, false],
  ];
  for (const [isTTY, variables, expected] of rows) {
    assert.equal(wantsColour({ isTTY }, variables), expected, JSON.stringify([isTTY, variables]));
  }
});

test("what is painted is marked for a terminal", () => {
  const before = process.env.FORCE_COLOR;
  try {
    process.env.FORCE_COLOR = "1";
    assert.equal(painter({})("red", "x"), "\x1b[31mx\x1b[39m");
    process.env.FORCE_COLOR = "0";
    assert.equal(painter({ isTTY: true })("red", "x"), "x");
  } finally {
    if (before === undefined) delete process.env.FORCE_COLOR;
    else process.env.FORCE_COLOR = before;
  }
});

/** Sequences that colour or set the weight of letters. */
// deno-lint-ignore no-control-regex
const COLOUR = /\x1b\[\d+m/;

realTest(
  "help and results are in colours on a terminal, unless NO_COLOR is set",
  ["script"],
  {},
  async (t) => {
    const words = [process.execPath, ...startWords(["--allow-ffi"], [join(root, "src/cli/mod.ts")])];
    const cli = words.map((word) => `'${word}'`).join(" ");
    // Of this process none of the variables is handed on.
    const clean = "env -u NO_COLOR -u FORCE_COLOR";
    for (
      const [command, coloured] of [
        [`${clean} ${cli} blk --help`, true],
        [`${clean} ${cli} --help`, true],
        [`${clean} NO_COLOR=1 ${cli} blk --help`, false],
        [`${clean} NO_COLOR= ${cli} blk --help`, true],
        [`${clean} FORCE_COLOR=0 ${cli} blk --help`, false],
      ] as const
    ) {
      const terminal = new Terminal(t, command);
      assert.equal(await terminal.end(), 0);
      assert.match(terminal.shown, /Usage:.*vhost-user/);
      assert.equal(COLOUR.test(terminal.shown), coloured, command);
    }
  },
);

test("elsewhere there are none, unless FORCE_COLOR is set", { timeout: 60_000 }, async (t) => {
  for (const [env, coloured] of [[{ NO_COLOR: "" }, false], [{ FORCE_COLOR: "1" }, true]] as const) {
    const child = startCommand(t, ["blk", "--help"], { env: { ...env } });
    assert.equal(await child.waitEnd(30_000), 0);
    assert.match(child.output, /Usage:.*vhost-user blk/);
    assert.equal(COLOUR.test(child.output), coloured, JSON.stringify(env));
  }
});
