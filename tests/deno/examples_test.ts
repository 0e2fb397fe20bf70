import assert from "node:assert/strict";
import { globSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { run } from "../support/process.ts";

// The examples of the documentation. `deno task doc-test` runs all but those that say `ignore`: they serve for ever, at a path
// that readers will want to type, or need a file of their own. What is a whole module of these has its types checked here.

/** A fenced block of TypeScript. */
interface Block {
  /** File and line. */
  readonly place: string;
  readonly text: string;
  readonly ignored: boolean;
}

/** The blocks of a file: of Markdown, or of the comments of a module. */
function blocksOf(path: string): Block[] {
  const found: Block[] = [];
  let open: { place: string; ignored: boolean; lines: string[] } | undefined;
  for (const [i, raw] of readFileSync(join(root, path), "utf8").split("\n").entries()) {
    const line = path.endsWith(".ts") ? /^\s*\*( (.*))?$/.exec(raw)?.[2] ?? "" : raw;
    if (open === undefined) {
      const fence = /^```ts( ignore)?$/.exec(line);
      if (fence !== null) open = { place: `${path}:${i + 1}`, ignored: fence[1] !== undefined, lines: [] };
    } else if (line === "```") {
      found.push({ place: open.place, ignored: open.ignored, text: open.lines.join("\n") });
      open = undefined;
    } else open.lines.push(line);
  }
  return found;
}

const { name, exports, imports } = JSON.parse(readFileSync(join(root, "deno.json"), "utf8"));
const sources = globSync(["mod.ts", "src/**/*.ts", "ffi/**/*.ts", "README.md", "docs/*.md"], { cwd: root });
const blocks = sources.sort().flatMap(blocksOf);

test("every entry point begins with a description and an example that is run", { timeout: 5000 }, () => {
  for (const path of Object.values<string>(exports)) {
    const text = readFileSync(join(root, path), "utf8");
    const [, comment] = /^\/\*\*\n([^]*?)\n \*\//.exec(text) ?? [];
    assert.ok(comment !== undefined, `${path} has no comment`);
    assert.match(comment, /^ \* [A-Z][^\n]+/, path);
    assert.match(comment, /^ \* @module$/m, path);
    const [first, ...others] = blocksOf(path.slice(2));
    assert.ok(
      [first, ...others].some((block) => block !== undefined && !block.ignored),
      `${path} has no example`,
    );
    // It is about the entry point, as its users name it.
    const key = Object.keys(exports).find((key) => exports[key] === path) ?? assert.fail();
    assert.ok(
      first.text.includes(JSON.stringify(key.replace(".", name))),
      `${path}: another module's example`,
    );
  }
});

test("no more examples than these are not run", { timeout: 5000 }, () => {
  const inSources = blocks.filter(({ place, ignored }) => ignored && /^(mod|src|ffi)/.test(place));
  assert.deepEqual(inSources.map(({ place }) => place.replace(/:.*/, "")), [
    "mod.ts", // The ten lines of README, which are run as an example and from JSR: tests/package.
    "src/backend/server.ts", // A module beside it, as in tests/workers.
  ]);
  const run = blocks.length - blocks.filter(({ ignored }) => ignored).length;
  assert.ok(run > 45, `${run} are run`);
});

test("examples that are not run have their types checked", { timeout: 120_000 }, async (t) => {
  const folder = tempDir(t);
  // A module imports something; the rest are parts of one.
  const modules = blocks.filter(({ text, ignored }) => ignored && /^import /m.test(text));
  assert.ok(modules.length > 10, `${modules.length} modules`);
  const own = Object.entries<string>(exports).map(([key, path]) => [
    key.replace(".", name),
    join(root, path),
  ]);
  const { compilerOptions } = JSON.parse(readFileSync(join(root, "deno.json"), "utf8"));
  writeFileSync(
    join(folder, "deno.json"),
    JSON.stringify({
      imports: { ...imports, ...Object.fromEntries(own) },
      compilerOptions,
      nodeModulesDir: "none",
      lock: false,
    }),
  );
  // The listings of a page refer to each other by the names of their files, and are those files: tests/docs.
  const files = modules.filter(({ text }) => !/from "\.\.?\//.test(text)).map(({ place, text }) => {
    const file = `${place.replaceAll(/[/.:]/g, "_")}.ts`;
    writeFileSync(join(folder, file), text);
    return file;
  });
  const { code, stderr } = await run(process.execPath, ["check", ...files], {
    cwd: folder,
    env: { NO_COLOR: "1", RUST_BACKTRACE: "0" },
    timeout: 100_000,
    check: false,
    signal: t.signal,
  });
  assert.equal(code, 0, stderr);
});
