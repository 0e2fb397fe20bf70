import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { type Command, loadAll, optionsOf, sectionsOf, UsageError } from "../../src/cli/command.ts";
import { commands } from "../../src/cli/commands.ts";
import { parseCommand } from "../../src/cli/parse.ts";
import { tempDir } from "../support/cleanup.ts";
import { realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";
import { runHere } from "./run.ts";

// The table of options is what help, completions and manual pages are made of. Here it is whole.

const LIMIT = { timeout: 20_000 };

test("every command has a summary, an example, and help for each option in sentences", LIMIT, async () => {
  for (const [name, command] of await loadAll(commands)) {
    assert.match(command.summary, /^[A-Z][^]*\.$/, name);
    assert.ok(command.examples.length > 0, `${name} has no example`);
    for (const [option, { help, value, choices, offer, multiple }] of Object.entries(optionsOf(command))) {
      const what = `${name} --${option}`;
      assert.match(help, /^[^]+[.:…]$/, what);
      assert.match(option, /^[a-z]+(-[a-z]+)*$/, what);
      if (value === undefined) {
        assert.deepEqual([choices, offer, multiple], [undefined, undefined, undefined], what);
      } else assert.match(value, /^[A-Z]/, what);
      assert.ok(
        choices === undefined || offer === undefined,
        `${what} has choices, and nothing else is possible`,
      );
    }
  }
});

test("options with the same name have the same kind of value in all commands", LIMIT, async () => {
  const kinds = new Map<string, string>();
  for (const [name, command] of await loadAll(commands)) {
    for (const [option, { value }] of Object.entries(optionsOf(command))) {
      const kind = value === undefined ? "a switch" : "with a value";
      assert.equal(kind, kinds.get(option) ?? kind, `--${option} of ${name}`);
      kinds.set(option, kind);
    }
  }
});

test("help has every command, and each command's help every option", LIMIT, async () => {
  const overview = (await runHere("--help")).out;
  for (const [name, command] of await loadAll(commands)) {
    assert.match(overview, new RegExp(`^  ${name} +[A-Z]`, "m"));
    const { code, out } = await runHere(name, "--help");
    assert.equal(code, 0);
    assert.match(out, new RegExp(`^Usage: vhost-user ${name} `));
    for (const [heading, options] of sectionsOf(command)) {
      assert.ok(out.includes(`\n${heading}:\n`), `${name}: ${heading}`);
      for (const option of Object.keys(options)) {
        assert.match(out, new RegExp(`^  (-\\w, )?--${option}[= ]`, "m"), `${name} --${option}`);
      }
    }
    assert.match(out, /\nPermissions of Deno: --allow-ffi/);
    assert.match(out, /\nExit status:\n {4}0 {2}/);
    for (const [line] of command.examples) assert.ok(out.includes(`\n  ${line}\n`), line);
    assert.deepEqual(await runHere(name, "-h"), await runHere(name, "--help"));
    assert.deepEqual(await runHere("help", name), await runHere(name, "--help"));
  }
});

/** What stands for programs in examples: prints the words that it is given, each after a zero byte. */
const PROGRAMS = ["vhost-user", "deno", "qemu-system-x86_64", "passt", "nc", "man"];

/** The command lines of `vhost-user` in a line for a shell: read by a shell, in which nothing else happens. */
async function commandLines(directory: string, line: string): Promise<string[][]> {
  const said = join(directory, "said");
  writeFileSync(said, "");
  const stubs = PROGRAMS.map((name) =>
    // Written at once: programs of one line run at the same time.
    `${name}() { local IFS=$'\\x1f'; printf '%s\\n' "${name}\${1+$IFS}$*" >>${said}; cat; }`
  );
  // Nothing is written where the example writes.
  const harmless = line.replace(/>\S+/g, ">/dev/null");
  const { stderr } = await run("bash", ["--norc", "-c", `${stubs.join("\n")}\n${harmless}\nwait`], {
    cwd: directory,
  });
  assert.equal(stderr, "", line);
  const { stdout } = await run("cat", [said]);
  return stdout.split("\n").slice(0, -1).map((words) => words.split("\x1f")).flatMap(
    ([program, ...words]) => {
      if (program === "vhost-user") return [words];
      const at = words.indexOf("jsr:@vhost/user/cli");
      return program === "deno" && at > 0 ? [words.slice(at + 1)] : [];
    },
  );
}

realTest("every example is a command line that can be understood", ["bash"], {}, async (t) => {
  const directory = tempDir(t);
  for (const [name, { examples }] of await loadAll(commands)) {
    let count = 0;
    for (const [line] of examples) {
      for (const [command, ...args] of await commandLines(directory, line)) {
        assert.equal(command, name, line);
        const { warnings } = parseCommand(await commands[name](), args);
        assert.deepEqual(warnings, [], line);
        count++;
      }
    }
    assert.ok(count > 0, `no example of ${name} is a command line of it`);
  }
});

realTest("an example that is none is noticed", ["bash"], {}, async (t) => {
  const lines = await commandLines(tempDir(t), "passt -f & vhost-user blk --blk-fil='my disk' | cat");
  assert.deepEqual(lines, [["blk", "--blk-fil=my disk"]]);
  const [[, ...args]] = lines;
  assert.throws(() => parseCommand(blkLike, args), UsageError);
});

const blkLike: Command = {
  summary: "A disk.",
  options: { "blk-file": { value: "PATH", help: "The disk." } },
  examples: [],
  run: () => Promise.resolve(0),
};
