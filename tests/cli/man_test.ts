import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { type Command, loadAll, sectionsOf } from "../../src/cli/command.ts";
import { commands } from "../../src/cli/commands.ts";
import { commandPage, escaped } from "../../src/cli/roff.ts";
import { version } from "../../src/cli/version.ts";
import { tempDir } from "../support/cleanup.ts";

import { root, startDeno } from "../support/our_backend.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";
import { runHere } from "./run.ts";

/** What old terminals print twice, or over a line. */
// deno-lint-ignore no-control-regex
const OVERSTRUCK = /.\x08/gu;

/** A page as a terminal of 100 columns would show it, without what makes letters bold or underlined. */
async function shown(file: string): Promise<string> {
  const { stdout, stderr } = await run(peerPath("groff"), [
    "-man",
    "-ww",
    "-Tutf8",
    "-rLL=100n",
    "-P-c",
    file,
  ]);
  assert.equal(stderr, "");
  return stdout.replaceAll(OVERSTRUCK, "");
}

/** Prints all pages into a directory. */
async function pages(directory: string): Promise<string[]> {
  const { code, out, error } = await runHere("man", `--dir=${directory}`);
  assert.deepEqual([code, error], [0, ""]);
  const files = out.split("\n");
  assert.deepEqual(
    files.map((each) => each.slice(directory.length + 1)).sort(),
    readdirSync(directory).sort(),
  );
  return files;
}

realTest(
  "groff shows every page without a warning, and all that help says is in it",
  ["groff"],
  {},
  async (t) => {
    const directory = tempDir(t);
    assert.equal((await pages(directory)).length, Object.keys(commands).length + 1);
    for (const [name, command] of await loadAll(commands)) {
      const text = await shown(join(directory, `vhost-user-${name}.1`));
      const words = text.replace(/\s+/g, " ");
      assert.match(text, new RegExp(`vhost-user ${version}`));
      for (const [, options] of sectionsOf(command)) {
        for (const [option, { value, help }] of Object.entries(options)) {
          assert.match(
            text,
            new RegExp(`^ +(-\\w, )?--${option}${value === undefined ? "( |$)" : "="}`, "m"),
          );
          assert.ok(words.includes(help.replace(/\s+/g, " ")), `${name} --${option}: ${help}`);
        }
      }
      for (const [line] of command.examples) {
        // The terminal may be narrower than the line, which then ends at its edge as it does in the shell.
        assert.ok(words.includes(line.replace(/\s+/g, " ")), `${name}: ${line}\n${text}`);
      }
    }
    const overview = await shown(join(directory, "vhost-user.1"));
    for (const name of Object.keys(commands)) assert.match(overview, new RegExp(`vhost-user-${name}\\(1\\)`));
    assert.match(overview, /NO_COLOR/);
  },
);

realTest("mandoc finds nothing wrong with the pages", ["mandoc"], {}, async (t) => {
  for (const file of await pages(tempDir(t))) {
    const { stdout } = await run(peerPath("mandoc"), ["-T", "lint", "-W", "warning", file], { check: false });
    // No date: pages of one version are the same whenever they are made.
    const found = stdout.split("\n").filter((line) => line !== "" && !line.includes("missing date"));
    assert.deepEqual(found, [], file);
  }
});

realTest("whatever a text has in it, a page shows it as it is", ["groff"], {}, async (t) => {
  const odd = ".start 'quoted' \"twice\" \\fBnot bold\\fR -- ~/.x ^ `tick` 5 µs … ²";
  const command: Command = {
    summary: `${odd}.`,
    options: { "odd": { value: "X", help: odd } },
    examples: [[`odd --odd='${odd}' \\\n.next`, "'Starts with a quote."]],
    run: () => Promise.resolve(0),
  };
  const directory = tempDir(t);
  const file = join(directory, "odd.1");
  const { lines } = commandPage("odd", command);
  assert.ok(lines.every((line) => /^[ -~\n]*$/.test(line)), "a page is ASCII");
  writeFileSync(file, lines.join("\n"));
  const text = await shown(file);
  assert.equal(text.split(odd).length, 4 + 1, text);
  assert.match(text, /^ *\.next$/m);
  assert.match(text, /^ *'Starts with a quote\.$/m);
});

test("a page is printed as it is written to a file", { timeout: 60_000 }, async (t) => {
  const directory = tempDir(t);
  const { out } = await runHere("man", "blk");
  const child = startDeno(t, [
    `--allow-write=${directory}`,
    ...[join(root, "src/cli/mod.ts"), "man", "blk", `--dir=${directory}/new`],
  ]);
  assert.equal(await child.waitEnd(30_000), 0, child.output);
  assert.equal(child.output, `${directory}/new/vhost-user-blk.1\n`);
  assert.equal(readFileSync(join(directory, "new/vhost-user-blk.1"), "utf8"), `${out}\n`);
  assert.match((await runHere("man")).out, /^\.TH VHOST\\-USER 1 /);
});

test("characters that roff would take for its own are escaped", () => {
  assert.equal(escaped("a-b\\c"), "a\\-b\\ec");
  assert.equal(escaped(".x\n.y"), "\\&.x\n\\&.y");
  assert.equal(escaped("µ"), "\\[u00B5]");
});
