import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { loadAll } from "../../src/cli/command.ts";
import { commands } from "../../src/cli/commands.ts";
import { version } from "../../src/cli/version.ts";
import { root } from "../support/our_backend.ts";
import { type Deprecated, deprecatedIn, mistakes } from "./changelog.ts";

// CHANGELOG.md, CONTRIBUTING.md and LICENSE against what they are about.

const LIMIT = { timeout: 20_000 };

function read(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

test("the changelog begins with the version that deno.json and the command line have", LIMIT, async () => {
  const config = JSON.parse(read("deno.json"));
  assert.equal(version, config.version);
  const sources = ["ffi", "src"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((path) => `${folder}/${path}`)
  ).filter((path) => path.endsWith(".ts"));
  const exported = [...sources, "mod.ts"].flatMap((path) => deprecatedIn(path, read(path)));
  const options = (await loadAll(commands)).flatMap(([, { options }]) =>
    Object.entries(options).flatMap(([name, { deprecated }]): Deprecated[] =>
      deprecated === undefined ? [] : [{ name: `--${name}`, since: deprecated.since }]
    )
  );
  assert.deepEqual(mistakes(read("CHANGELOG.md"), config.version, [...exported, ...options]), []);
});

const GOOD = "# Changelog\n\n## [0.2.0] - unreleased\n\n### Deprecated\n\n- `--old`, `older()`\n\n" +
  "## [0.1.0] - 2026-11-26\n\n### Added\n\n- All.\n";

test("mistakes of a changelog are found", () => {
  const old = [{ name: "--old", since: "0.2.0" }, { name: "older", since: "0.2.0" }];
  assert.deepEqual(mistakes(GOOD, "0.2.0", old), []);
  const rows: [text: string, version: string, deprecated: Deprecated[], found: string][] = [
    [GOOD, "0.3.0", [], "the first version is 0.2.0, not 0.3.0"],
    [GOOD.replace("2026-11-26", "unreleased"), "0.2.0", [], "0.1.0 has the date 'unreleased'"],
    [GOOD.replace("2026-11-26", "today"), "0.2.0", [], "0.1.0 has the date 'today'"],
    [GOOD.replace("[0.1.0]", "[0.10.0]"), "0.2.0", [], "0.10.0 stands below what is older"],
    [GOOD.replace("### Added", "### News"), "0.2.0", [], "0.1.0 has 'News'"],
    [GOOD.replace("### Added", "Added"), "0.2.0", [], "0.1.0 has no changes"],
    [
      GOOD,
      "0.2.0",
      [{ name: "--new", since: "0.2.0" }],
      "--new is deprecated since 0.2.0, which does not say so",
    ],
    [
      GOOD,
      "0.2.0",
      [{ name: "--old", since: "0.1.0" }],
      "--old is deprecated since 0.1.0, which does not say so",
    ],
  ];
  for (const [text, version, deprecated, found] of rows) {
    assert.deepEqual(mistakes(text, version, deprecated), [found]);
  }
});

test("what sources call deprecated is found, with its version", () => {
  const source = (tag: string) =>
    `/**\n * Does it.\n *\n * ${tag}\n */\nexport async function older(a: number): void {}\nexport const b = 1;\n`;
  assert.deepEqual(deprecatedIn("x.ts", source("@deprecated since 0.2.0: use newer")), [
    { name: "older", since: "0.2.0" },
  ]);
  assert.deepEqual(deprecatedIn("x.ts", source("@returns nothing")), []);
  for (const tag of ["@deprecated", "@deprecated use newer", "@deprecated since 0.2.0"]) {
    assert.throws(() => deprecatedIn("x.ts", source(tag)), /x\.ts: older: /);
  }
});

test("the map for contributors has every folder of the sources, and each of its places exists", () => {
  const text = read("CONTRIBUTING.md");
  const places = [...text.matchAll(/^\| `([\w./]+)` +\|/gm)].map(([, place]) => place);
  assert.ok(places.length > 15);
  for (const place of places) assert.ok(existsSync(join(root, place)), place);
  const folders = readdirSync(join(root, "src"), { withFileTypes: true }).filter((each) =>
    each.isDirectory()
  );
  for (const { name } of folders) assert.ok(places.includes(`src/${name}/`), `src/${name}/`);
  // Also where the text sends people.
  for (const [, path] of text.matchAll(/`((?:src|tests|scripts|ffi|docs|bench|examples)\/[\w./]+)`/g)) {
    assert.ok(existsSync(join(root, path)), path);
  }
  for (const [, task] of text.matchAll(/deno task ([\w-]+)/g)) {
    assert.ok(Object.hasOwn(JSON.parse(read("deno.json")).tasks, task), `deno task ${task}`);
  }
});

const APACHE = "/usr/share/common-licenses/Apache-2.0";

test(
  "LICENSE has both licences whole",
  { ...LIMIT, skip: existsSync(APACHE) ? false : `missing ${APACHE}` },
  () => {
    const words = (text: string): string => text.split(/\s+/).join(" ").trim();
    const license = words(read("LICENSE"));
    assert.match(license, /^SPDX-License-Identifier: Apache-2\.0 OR BSD-3-Clause /);
    assert.ok(license.includes(words(readFileSync(APACHE, "utf8"))), "the text of Apache-2.0");
    for (
      const part of [
        "BSD 3-Clause License Copyright (c) 2026, the @vhost/user authors",
        "1. Redistributions of source code must retain the above copyright notice, this list of conditions and the " +
        "following disclaimer.",
        "2. Redistributions in binary form must reproduce the above copyright notice,",
        "3. Neither the name of the copyright holder nor the names of its contributors may be used to endorse",
        "EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.",
      ]
    ) assert.ok(license.includes(part), part);
  },
);
