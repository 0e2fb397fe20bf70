import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, posix } from "node:path";
import process from "node:process";
import { test, type TestContext } from "node:test";
import { tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { Child, run } from "../support/process.ts";
import { qemuIo } from "../support/qemu_io.ts";
import { config, filesIn } from "./jsr_registry.ts";

// The archive that `deno pack` makes: JavaScript and declarations, for Deno programs that keep their packages in
// node_modules. The package for npm, which Node uses, is another one.

const LIMIT = { timeout: 240_000 };
const env = { NO_COLOR: "1", RUST_BACKTRACE: "0", DENO_NO_PROMPT: "1", DENO_NO_UPDATE_CHECK: "1" };

/** A project with the package in its node_modules. */
async function project(t: TestContext): Promise<{ folder: string; modules: string }> {
  const folder = tempDir(t);
  const archive = join(folder, "package.tgz");
  await run(process.execPath, ["pack", "--allow-dirty", `--output=${archive}`], {
    cwd: root,
    env,
    signal: t.signal,
    // It checks the types, too.
    timeout: 200_000,
  });
  const modules = join(folder, "node_modules", config.name);
  mkdirSync(modules, { recursive: true });
  await run("tar", ["-xzf", archive, "--strip-components=1", "-C", modules]);
  writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }));
  return { folder, modules };
}

test("what is packed is the library in JavaScript, and nothing else", LIMIT, async (t) => {
  const { modules } = await project(t);
  const files = filesIn(modules);
  const other = files.filter((file) => !/^(src|ffi)\/[\w/]+(\.d\.ts|\.js)$/.test(file));
  assert.deepEqual(other, ["CHANGELOG.md", "LICENSE", "README.md", "mod.d.ts", "mod.js", "package.json"]);
  // A thread begins with a module of its own.
  for (const file of ["main", "hosted_session"]) assert.ok(files.includes(`src/backend/threads/${file}.js`));
  const { name, version, exports } = JSON.parse(readFileSync(join(modules, "package.json"), "utf8"));
  assert.deepEqual({ name, version }, { name: config.name, version: config.version });
  assert.deepEqual(Object.keys(exports), Object.keys(config.exports));
  for (const { types, import: code } of Object.values<{ types: string; import: string }>(exports)) {
    for (const path of [types, code]) assert.ok(files.includes(posix.normalize(path)), path);
  }
});

test("every entry point of the packed package has its types and runs", LIMIT, async (t) => {
  const { folder } = await project(t);
  const names = Object.keys(config.exports).map((key) => posix.join(config.name, key));
  const program = [
    ...names.map((name, i) => `import * as m${i} from ${JSON.stringify(name)};`),
    `const all = [${names.map((_, i) => `m${i}`)}];`,
    "console.log(all.filter((module) => Object.keys(module).length > 0).length);",
    `import { defineDevice } from ${JSON.stringify(config.name)};`,
    "// @ts-expect-error: a queue's handler takes a chain",
    "defineDevice({ type: 4, queues: [(chain: string) => chain.length] });",
    "",
  ];
  writeFileSync(join(folder, "all.ts"), program.join("\n"));
  await run(process.execPath, ["check", "all.ts"], { cwd: folder, env, signal: t.signal, timeout: 200_000 });
  const { stdout } = await run(process.execPath, ["run", "--allow-ffi", "all.ts"], {
    cwd: folder,
    env,
    signal: t.signal,
  });
  assert.equal(stdout.trim(), String(names.length));
});

realTest("Node is told that it needs the other package", ["node24"], LIMIT, async (t) => {
  const { folder } = await project(t);
  writeFileSync(
    join(folder, "serve.js"),
    `import { serve } from ${JSON.stringify(config.name)};\nserve();\n`,
  );
  const options = { cwd: folder, env, check: false, signal: t.signal };
  const { code, stderr } = await run(peerPath("node24"), ["serve.js"], options);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^Error: this is vhost-user for Deno, as on JSR; Node and Bun need the package .* on npm$/m,
  );
});

realTest("the packed package serves a disk in threads", ["qemu-io", "libblkio"], LIMIT, async (t) => {
  const { folder, modules } = await project(t);
  const socket = join(folder, "disk.sock");
  const args = ["blk", `--socket-path=${socket}`, "--storage=mem:16M", "--workers=2"];
  const flags = ["--allow-ffi", `--allow-read=${modules}`];
  const child = Child.start(t, process.execPath, ["run", ...flags, `npm:${config.name}/cli`, ...args], {
    cwd: folder,
    env,
  });
  await child.waitLine(/^vhost-user blk: .* on /, 60_000);
  await qemuIo(
    socket,
    "write -P 5 0 4M",
    "aio_write -P 6 4M 4M",
    "aio_flush",
    "read -P 5 0 4M",
    "read -P 6 4M 4M",
  );
  assert.equal(child.code, undefined, child.output);
});
