import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { manifestFor, modules, readConfig, root } from "../../scripts/npm/files.ts";
import {
  DEPENDENCIES,
  emitted,
  licenseIn,
  mappings,
  packageJson,
  PROGRAM,
  rangeOf,
  twinOf,
} from "../../scripts/npm/package.ts";
import { withoutComments } from "../architecture.ts";
import { packagesOf } from "./contents.ts";

// What scripts/build_npm.ts hands to dnt, and what dnt does not know.

const LIMIT = { timeout: 5000 };

function sourceOf(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

test("Deno's files are mapped to their twins, all of them", LIMIT, () => {
  assert.deepEqual(mappings(modules()), {
    "./ffi/deno.ts": "./ffi/node.ts",
    "./src/cli/terminal_files/deno.ts": "./src/cli/terminal_files/node.ts",
    "./src/cli/watch/graph/deno.ts": "./src/cli/watch/graph/node.ts",
  });
  assert.equal(twinOf("ffi/fd.ts"), undefined);
  assert.equal(twinOf("ffi/not_deno.ts"), undefined);
  assert.equal(twinOf("deno.ts"), "node.ts");
  assert.throws(() => mappings(["src/a/deno.ts"]), /src\/a\/node\.ts is missing/);
});

test("package.json says what deno.json says, and where the package runs", LIMIT, () => {
  const config = readConfig();
  const { exports, ...rest } = manifestFor("esm/") as { exports: Record<string, Record<string, string>> };
  assert.deepEqual(Object.keys(exports), [...Object.keys(config.exports), "./package.json"]);
  assert.deepEqual(exports["."], { types: "./esm/mod.d.ts", default: "./esm/mod.js" });
  assert.deepEqual(exports["./devices/blk"], {
    types: "./esm/src/devices/blk/mod.d.ts",
    default: "./esm/src/devices/blk/mod.js",
  });
  // TypeScript takes the first condition that it knows.
  for (const [name, target] of Object.entries(exports)) {
    if (name !== "./package.json") assert.deepEqual(Object.keys(target), ["types", "default"], name);
  }
  const { description, keywords, dependencies, ...facts } = rest as Record<string, unknown>;
  assert.ok(typeof description === "string" && Array.isArray(keywords));
  assert.deepEqual(facts, {
    name: config.name,
    version: config.version,
    license: "Apache-2.0 OR BSD-3-Clause",
    type: "module",
    bin: { "vhost-user": "./esm/src/cli/main.js" },
    engines: { node: ">=22" },
    os: ["linux"],
    cpu: ["x64", "arm64"],
    libc: ["glibc"],
  });
  for (const [name, range] of Object.entries(dependencies as Record<string, string>)) {
    assert.equal(config.imports[name], `npm:${name}@${range.slice(1)}`, name);
  }
});

test("it depends on what Node's modules import, no more and no less", LIMIT, () => {
  const twins = new Set(Object.keys(mappings(modules())).map((path) => path.slice(2)));
  const inNode = modules().filter((path) => !twins.has(path));
  const needed = new Set(inNode.flatMap((path) => packagesOf(sourceOf(path))));
  assert.deepEqual([...needed].sort(), [...DEPENDENCIES].sort());
});

test("a version of deno.json becomes the range of what is compatible", LIMIT, () => {
  assert.equal(rangeOf("ws", "npm:ws@8.23.0"), "^8.23.0");
  assert.equal(rangeOf("@xterm/xterm", "npm:@xterm/xterm@6.0.0"), "^6.0.0");
  assert.equal(rangeOf("@xterm/xterm", "npm:/@xterm/xterm@6.0.0/"), "^6.0.0");
  for (const wrong of [undefined, "npm:ws", "npm:ws@8", "npm:wss@8.23.0", "jsr:ws@8.23.0"]) {
    assert.throws(() => rangeOf("ws", wrong), /deno\.json must import ws as npm:ws@1\.2\.3/, wrong);
  }
});

test("where a module's code and types are", LIMIT, () => {
  assert.equal(emitted("./mod.ts", ""), "./mod.js");
  assert.equal(emitted("./src/cli/mod.ts", "esm/", ".d.ts"), "./esm/src/cli/mod.d.ts");
  for (const wrong of ["mod.ts", "./mod.js", "./.ts"]) assert.throws(() => emitted(wrong, ""), wrong);
});

test("the licences are those of LICENSE", LIMIT, () => {
  assert.equal(licenseIn("# x\nSPDX-License-Identifier: MIT\n\nwords"), "MIT");
  assert.throws(() => licenseIn("MIT"), /SPDX/);
  assert.equal(packageJson(readConfig(), "MIT", "").license, "MIT");
});

test("no module says what dnt would make something else of", LIMIT, () => {
  const offences: string[] = [];
  for (const path of modules()) {
    const code = withoutComments(sourceOf(path));
    // dnt 0.40 writes new URL() and a look at argv in their place; both go wrong in a package.
    if (/\bimport\.meta\.(resolve|main|dirname|filename)\b/.test(code)) offences.push(`${path}: import.meta`);
    // It adds one to the program.
    if (code.startsWith("#!")) offences.push(`${path}: #!`);
    // Node 22 has no such declarations, and imports no text.
    if (/\b(await )?using \w+ =/.test(code)) offences.push(`${path}: using`);
    if (/\bwith \{ type:/.test(code) && twinOf(path) === undefined) offences.push(`${path}: with { type }`);
  }
  assert.deepEqual(offences, []);
});

test("the program is reached, and is what starts the command line", LIMIT, () => {
  assert.ok(modules().includes(PROGRAM.slice(2)));
  assert.match(sourceOf(PROGRAM), /main\(process\.argv\.slice\(2\)\)/);
});

test(
  "modules that only threads run are imported once all the same, so that packages have them",
  LIMIT,
  () => {
    let found = 0;
    for (const path of modules()) {
      const code = withoutComments(sourceOf(path));
      for (const [, specifier] of code.matchAll(/new URL\("(\.[^"]*)", import\.meta\.url\)/g)) {
        found++;
        assert.ok(code.includes(`import("${specifier}")`), `${path} → ${specifier}`);
      }
    }
    assert.ok(found > 0);
  },
);
