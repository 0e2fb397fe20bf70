import assert from "node:assert/strict";
import test from "node:test";
import { type Command, sectionsOf, UsageError, type Values } from "../../src/cli/command.ts";
import { helpText } from "../../src/cli/help.ts";
import { parseCommand } from "../../src/cli/parse.ts";
import { runCommand } from "../../src/cli/program.ts";
import { commandPage } from "../../src/cli/roff.ts";
import { runHere } from "./run.ts";

/** A command with an option of every kind. */
function command(seen: (values: Values) => void = () => {}): Command {
  return {
    summary: "Tries everything. And more.",
    argument: { name: "WHAT", choices: ["this", "that"], help: "What.", optional: true },
    options: {
      "path": { value: "PATH", help: "A path." },
      "level": { value: "LEVEL", choices: ["low", "high"], help: "A level." },
      "each": { value: "X", multiple: true, help: "Any of it." },
      "loud": { short: "l", help: "A switch." },
      "file": {
        value: "PATH",
        help: "What was before path.",
        deprecated: { since: "0.2.0", renamedTo: "path" },
      },
      "noisy": { help: "Before loud.", deprecated: { since: "0.2.0", renamedTo: "loud" } },
      "useless": { value: "N", help: "Nothing.", deprecated: { since: "0.3.0", advice: "leave it out" } },
      "inner": { value: "FD", help: "For itself.", hidden: true },
    },
    examples: [["do this", "Does it."]],
    run: (values) => {
      seen(values);
      return Promise.resolve(3);
    },
  };
}

test("values come by name, several where several may be", () => {
  const rows: [string[], Values][] = [
    [[], {}],
    [["--path=a", "--each", "1", "--each=2", "--loud"], { path: "a", each: ["1", "2"], loud: true }],
    [["-l", "this"], { loud: true, WHAT: "this" }],
    [["--path", "-"], { path: "-" }],
    [["--path="], { path: "" }],
    [["--path=--loud"], { path: "--loud" }],
    [["--path=a", "--path=b"], { path: "b" }],
    [["--inner=3", "--", "that"], { inner: "3", WHAT: "that" }],
  ];
  for (const [args, values] of rows) {
    assert.deepEqual(parseCommand(command(), args), { values, warnings: [] }, args.join(" "));
  }
});

test("what cannot be understood is told, with what may have been meant", () => {
  const rows: [string[], string][] = [
    [["--pth=x"], "no option '--pth'; did you mean '--path'?"],
    [["--luod"], "no option '--luod'; did you mean '--loud'?"],
    [["--xyzzy"], "no option '--xyzzy'"],
    [["-x"], "no option '-x'"],
    // What lists leave out is not suggested.
    [["--innr=3"], "no option '--innr'"],
    [["--useles=3"], "no option '--useles'"],
    [["--constructor"], "no option '--constructor'"],
    [["--__proto__=x"], "no option '--__proto__'"],
    [["--path"], "--path needs a value: --path=PATH"],
    [["--path", "--loud"], "--path needs a value, and '--loud' may be an option; if not, say --path=--loud"],
    [["--loud=yes"], "--loud takes no value, got 'yes'"],
    [["--level=hihg"], "--level must be low or high, got 'hihg'; did you mean 'high'?"],
    [["--level=medium"], "--level must be low or high, got 'medium'"],
    [["those"], "WHAT must be this or that, got 'those'"],
    [["thaat"], "WHAT must be this or that, got 'thaat'; did you mean 'that'?"],
    [["this", "that"], "one WHAT, got this and that"],
  ];
  for (const [args, message] of rows) {
    assert.throws(() => parseCommand(command(), args), { constructor: UsageError, message }, args.join(" "));
  }
  const { argument: _, ...none } = command();
  assert.throws(() => parseCommand(none, ["x"]), { message: "what is 'x'? There are only options" });
  const needed = { ...command(), argument: { name: "WHAT", help: "What." } };
  assert.throws(() => parseCommand(needed, []), { message: "which WHAT?" });
});

test("what is deprecated is taken, with a warning, and in no list", async () => {
  const rows: [string[], Values, string[]][] = [
    [["--file=x"], { path: "x" }, ["--file is deprecated since 0.2.0 and will go: use --path"]],
    [["--noisy"], { loud: true }, ["--noisy is deprecated since 0.2.0 and will go: use --loud"]],
    [["--useless=1"], { useless: "1" }, ["--useless is deprecated since 0.3.0 and will go: leave it out"]],
  ];
  for (const [args, values, warnings] of rows) {
    assert.deepEqual(parseCommand(command(), args), { values, warnings });
    const said: string[] = [];
    let seen: Values = {};
    const code = await runCommand("try", command((values) => seen = values), args, {
      out: (line) => said.push(`out: ${line}`),
      error: (line) => said.push(line),
    });
    assert.equal(code, 3);
    assert.deepEqual(said, warnings.map((each) => `warning: ${each}`));
    assert.deepEqual(seen, values);
  }
  const lists = [
    helpText("try", command()),
    commandPage("try", command()).lines.join("\n").replaceAll("\\-", "-"),
  ];
  for (const list of lists) {
    assert.match(list, /--path/);
    assert.doesNotMatch(list, /--(file|noisy|useless|inner)/);
  }
  assert.deepEqual(sectionsOf(command()).map(([, options]) => Object.keys(options)), [
    ["path", "level", "each", "loud", "help"],
  ]);
});

test("a command that nobody knows is told, with what may have been meant", { timeout: 20_000 }, async () => {
  for (
    const [args, message] of [
      [["bkl"], "vhost-user: no command 'bkl'; did you mean 'blk'?"],
      [["vsokc"], "vhost-user: no command 'vsokc'; did you mean 'vsock'?"],
      [["comp"], "vhost-user: no command 'comp'; did you mean 'completions'?"],
      [["hlep"], "vhost-user: no command 'hlep'; did you mean 'help'?"],
      [["frobnicate"], "vhost-user: no command 'frobnicate'"],
      [["help", "neet"], "vhost-user: no command 'neet'; did you mean 'net'?"],
      [["--vesion"], "vhost-user: no option '--vesion' before the command; did you mean '--version'?"],
      [["__proto__"], "vhost-user: no command '__proto__'"],
      [[], "vhost-user: which command?"],
    ] as const
  ) {
    assert.deepEqual(await runHere(...args), {
      code: 2,
      out: "",
      error: `${message}\nTry 'vhost-user --help'.`,
    });
  }
  const { code, error } = await runHere("blk", "--soket-path=/tmp/x", "--blk-file=y");
  assert.equal(code, 2);
  assert.equal(
    error,
    "vhost-user blk: no option '--soket-path'; did you mean '--socket-path'?\nTry 'vhost-user blk --help'.",
  );
});
