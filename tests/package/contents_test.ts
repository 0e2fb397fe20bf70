import assert from "node:assert/strict";
import test from "node:test";
import { defects, packageOf, packagesOf } from "./contents.ts";

// That the look at a package sees what it should.

const LIMIT = { timeout: 5000 };

const good: Readonly<Record<string, string>> = {
  "package.json": JSON.stringify({
    exports: { ".": { types: "./mod.d.ts", default: "./mod.js" }, "./package.json": "./package.json" },
    bin: { x: "./src/main.js" },
    man: ["./man/x.1"],
    dependencies: { koffi: "^1.0.0" },
  }),
  "CHANGELOG.md": "",
  "README.md": "",
  "man/x.1": "",
  "LICENSE": "",
  "mod.js":
    'import "node:fs"; import "./src/thread.js"; import koffi from "koffi"; new URL("./src/thread.ts", import.meta.url);',
  "mod.d.ts": 'export { a } from "./src/thread.js";',
  "src/main.js": '#!/usr/bin/env node\nimport "../mod.js";',
  "src/thread.js": "",
  "src/thread.d.ts": "",
};

/** What is said of the good package with these changes; undefined takes a file away. */
function say(changes: Readonly<Record<string, string | undefined>>): string[] {
  const all = Object.entries({ ...good, ...changes });
  return defects(new Map(all.filter((entry): entry is [string, string] => entry[1] !== undefined)));
}

test("a package that is as it should be has no defects", LIMIT, () => {
  assert.deepEqual(say({}), []);
});

test("every defect is found, and nothing besides", LIMIT, () => {
  const cases: [changes: Readonly<Record<string, string | undefined>>, found: string][] = [
    [{ LICENSE: undefined }, "LICENSE is missing"],
    [{ "man/x.1": undefined }, "package.json names ./man/x.1, which is missing"],
    [{ "man/y.1": "" }, "man/y.1 has no place in a package"],
    [{ "mod.d.ts": undefined }, "package.json names ./mod.d.ts, which is missing"],
    [{ "src/main.js": 'import "../mod.js";' }, './src/main.js begins with "import \\"../mod.js\\";"'],
    [{ "tests/x.js": "" }, "tests/x.js has no place in a package"],
    [{ "src/thread.ts": "" }, "src/thread.ts has no place in a package"],
    [{ "deno.lock": "" }, "deno.lock has no place in a package"],
    [{ "src/thread.js": "Deno.exit();" }, "src/thread.js names Deno"],
    [
      { "src/thread.js": 'globalThis[Symbol.for("import-meta-ponyfill-esmodule")](import.meta).url' },
      "src/thread.js has a polyfill of import.meta",
    ],
    [
      { "src/thread.js": 'import "npm:ws@8";' },
      "src/thread.js needs npm:ws@8, and package.json does not depend on it",
    ],
    [
      { "src/thread.js": 'import "#ffi";' },
      "src/thread.js needs #ffi, and package.json does not depend on it",
    ],
    [
      { "src/thread.js": 'resolve("@a/b/c.css");' },
      "src/thread.js needs @a/b/c.css, and package.json does not depend on it",
    ],
    [{ "src/thread.js": 'import "./gone.js";' }, "src/thread.js → ./gone.js, which is missing"],
    [
      { "src/thread.js": 'new URL("./gone.ts", import.meta.url)' },
      "src/thread.js → ./gone.ts, which is missing",
    ],
    [
      { "src/thread.d.ts": 'import { A } from "./gone.js";' },
      "src/thread.d.ts → ./gone.js, which is missing",
    ],
  ];
  for (const [changes, found] of cases) assert.deepEqual(say(changes), [found]);
});

test("the package of a specifier", LIMIT, () => {
  assert.equal(packageOf("ws/lib/x.js"), "ws");
  assert.equal(packageOf("@xterm/xterm/css/xterm.css"), "@xterm/xterm");
  assert.deepEqual(
    packagesOf(
      'import "ws"; import "./a.ts"; import "node:fs"; resolve("koffi"); resolve("@a/b/c"); path.resolve("x")',
    ),
    [
      "ws",
      "koffi",
      "@a/b",
    ],
  );
});
