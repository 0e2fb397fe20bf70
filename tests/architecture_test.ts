import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { importsOf, offences, type Sources } from "./architecture.ts";

const root = fileURLToPath(new URL("../", import.meta.url));

function project(): Sources {
  const inside = ["ffi", "src"].flatMap((folder) =>
    readdirSync(root + folder, { recursive: true, encoding: "utf8" }).map((path) => `${folder}/${path}`)
  );
  const files = [...inside, "mod.ts"].filter((path) => path.endsWith(".ts"));
  return new Map(files.sort().map((path) => [path, readFileSync(root + path, "utf8")]));
}

test("every import goes down the layers, and none in a circle", { timeout: 5000 }, () => {
  const sources = project();
  assert.ok(sources.size > 40, `only ${sources.size} files were found`);
  const arrows = [...sources.values()].flatMap(importsOf).length;
  assert.ok(arrows > 150, `only ${arrows} imports were found`);
  const found = offences(sources);
  assert.deepEqual(found, [], `not allowed:\n  ${found.join("\n  ")}`);
});

/** What is said of a project that has only these files. */
function say(files: Readonly<Record<string, string>>): string[] {
  return offences(new Map(Object.entries(files)));
}

test("an arrow upwards is found, in whatever form", { timeout: 5000 }, () => {
  const upwards = "src/memory/region.ts → src/virtqueue/ring.ts";
  for (
    const line of [
      'import { Ring } from "../virtqueue/ring.ts";',
      'import type { Ring } from "../virtqueue/ring.ts";',
      'import {\n  type Ring,\n} from "../virtqueue/ring.ts";',
      'import "../virtqueue/ring.ts";',
      'export * from "../virtqueue/ring.ts";',
      'const ring = await import("../virtqueue/ring.ts");',
      'type Ring = import("../virtqueue/ring.ts").Ring;',
      'new Worker(new URL("../virtqueue/ring.ts", import.meta.url));',
    ]
  ) assert.deepEqual(say({ "src/memory/region.ts": line }), [upwards], line);
});

test("an arrow downwards or within a folder is fine", { timeout: 5000 }, () => {
  assert.deepEqual(
    say({
      "mod.ts": 'export * from "./src/backend/server.ts";',
      "src/backend/server.ts": 'import { a } from "../../ffi/fd.ts"; import { b } from "./session.ts";',
      "src/devices/blk/disk.ts":
        'import { a } from "./storage.ts"; import { b } from "../../memory/span.ts";',
      "src/cli/mod.ts": 'import process from "node:process";',
      "ffi/reactor.ts": 'import { setImmediate } from "node:timers";',
    }),
    [],
  );
});

test("what only some layers may reach is out of reach for the others", { timeout: 5000 }, () => {
  const forbidden = {
    "ffi/fd.ts": "../src/protocol/error.ts",
    "src/protocol/codec.ts": "../../ffi/native.ts",
    "src/transport/connection.ts": "../memory/region.ts",
    "src/virtqueue/ring.ts": "../transport/connection.ts",
    "src/backend/session.ts": "../frontend/front_end.ts",
    "src/frontend/front_end.ts": "../memory/guest_memory.ts",
    "src/devices/blk/disk.ts": "../../transport/connection.ts",
    "src/tools/trace.ts": "../cli/mod.ts",
    "mod.ts": "./src/tools/trace.ts",
    "src/memory/region.ts": "../../mod.ts",
    "src/backend/log.ts": "npm:pino",
    "src/virtqueue/chain.ts": "node:fs",
  };
  for (const [file, target] of Object.entries(forbidden)) {
    const found = say({ [file]: `import {} from "${target}";` });
    assert.equal(found.length, 1, `${file} → ${target}`);
    assert.ok(found[0].startsWith(`${file} → `));
  }
});

test("a circle is found, also between two files of a folder, and through a third", { timeout: 5000 }, () => {
  assert.deepEqual(
    say({
      "ffi/a.ts": 'import {} from "./b.ts";',
      "ffi/b.ts": 'import {} from "./c.ts";',
      "ffi/c.ts": 'import {} from "./b.ts";',
      "ffi/d.ts": 'import {} from "./d.ts";',
    }),
    ["ffi/b.ts → ffi/c.ts → ffi/b.ts", "ffi/d.ts → ffi/d.ts"],
  );
});

test("the runtime is named in one file", { timeout: 5000 }, () => {
  const found = ["src/cli/mod.ts: names Deno, which only ffi/deno.ts may"];
  assert.deepEqual(say({ "src/cli/mod.ts": "Deno.exit(1);" }), found);
  assert.deepEqual(say({ "src/cli/mod.ts": "const os = `${Deno.build.os}`;" }), found);
  assert.deepEqual(say({ "src/cli/mod.ts": "globalThis.Deno?.exit(1);" }), found);
  assert.deepEqual(say({ "ffi/deno.ts": "Deno.exit(1);" }), []);
});

test("what is for Node is out of Deno's reach, and the other way round", { timeout: 5000 }, () => {
  const taken = "ffi/node.ts, which only takes the place of ffi/deno.ts";
  assert.deepEqual(say({ "ffi/fd.ts": 'import {} from "./node.ts";' }), [`ffi/fd.ts → ${taken}`]);
  assert.deepEqual(say({ "mod.ts": 'export * from "./ffi/node.ts";' }), [`mod.ts → ${taken}`]);
  assert.deepEqual(say({ "ffi/fd.ts": 'import koffi from "koffi";' }), ["ffi/fd.ts → koffi"]);
  assert.deepEqual(say({ "src/cli/mod.ts": 'import("npm:koffi");' }), ["src/cli/mod.ts → npm:koffi"]);
  assert.deepEqual(say({ "ffi/node.ts": 'import koffi from "koffi"; import {} from "./symbols.ts";' }), []);
});

/** What a module exports, as far as it says so where it declares it. */
function exportsOf(path: string): string[] {
  const declaration = /^export (?:async )?(function|const|interface|class|type) (\w+)/gm;
  return [...readFileSync(root + path, "utf8").matchAll(declaration)].map(([, kind, name]) =>
    `${kind} ${name}`
  );
}

test("Node's files export what Deno's do", { timeout: 5000 }, () => {
  const twins = [...project().keys()].filter((path) => /(^|\/)(deno|node)\.ts$/.test(path));
  assert.deepEqual(twins, [
    "ffi/deno.ts",
    "ffi/node.ts",
    "src/cli/terminal_files/deno.ts",
    "src/cli/terminal_files/node.ts",
    "src/cli/watch/graph/deno.ts",
    "src/cli/watch/graph/node.ts",
  ]);
  for (
    const [path, least] of [["ffi/", 10], ["src/cli/terminal_files/", 3], [
      "src/cli/watch/graph/",
      1,
    ]] as const
  ) {
    const exported = exportsOf(`${path}deno.ts`);
    assert.ok(exported.length >= least, exported.join());
    assert.deepEqual(exportsOf(`${path}node.ts`), exported);
  }
});

test("comments are no code", { timeout: 5000 }, () => {
  assert.deepEqual(
    say({
      "src/memory/region.ts": '// import {} from "../backend/session.ts";\n' +
        '/* Deno.exit(1)\n * import {} from "../cli/mod.ts"; */\n' +
        'const url = "http://example/"; // Deno.exit(1)\n',
    }),
    [],
  );
  assert.deepEqual(
    say({ "src/memory/region.ts": 'const a = "/*"; Deno.exit(1); const b = "*/";' }).length,
    1,
  );
});

test("a folder that no layer has is found", { timeout: 5000 }, () => {
  assert.deepEqual(say({ "src/misc/helpers.ts": "" }), ["src/misc/helpers.ts: no layer has this folder"]);
});
