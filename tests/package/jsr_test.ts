import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import process from "node:process";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { importsOf } from "../architecture.ts";
import { FrontEnd } from "../../src/frontend/mod.ts";
import { tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { which } from "../support/path.ts";
import { realTest } from "../support/peers.ts";
import { Child, run } from "../support/process.ts";
import { qemuIo } from "../support/qemu_io.ts";
import { config, filesIn, JsrRegistry } from "./jsr_registry.ts";

// The package as users of JSR get it: published to a registry on loopback, and used from there, with the permissions
// that README names, by somebody who has nothing else.

const LIMIT = { timeout: 240_000 };
const MIB = 1 << 20;

/** A registry to which the package was published. */
async function published(t: TestContext): Promise<JsrRegistry> {
  const registry = await JsrRegistry.start(t);
  await registry.publish(t.signal);
  return registry;
}

/** Starts Deno in an empty directory, or the one given. */
function start(
  t: TestContext,
  registry: JsrRegistry,
  args: readonly string[],
  cwd: string = tempDir(t),
): Child {
  return Child.start(t, process.execPath, args, { cwd, env: registry.env });
}

/** Runs Deno to its end, as {@link start}, and returns what it has written. */
async function deno(t: TestContext, registry: JsrRegistry, cwd: string, ...args: string[]): Promise<string> {
  const options = { cwd, env: registry.env, signal: t.signal, timeout: LIMIT.timeout };
  return (await run(process.execPath, args, options)).stdout;
}

/** Commands of a text, without `deno`. */
function commandsIn(text: string, pattern: RegExp): string[][] {
  return [...text.matchAll(pattern)].map(([command]) => command.trim().split(/\s+/).slice(1));
}

test("what is published is the library, its licence and its README, and nothing else", LIMIT, async (t) => {
  const registry = await JsrRegistry.start(t);
  const { stdout, stderr } = await registry.publish(t.signal);
  const files = filesIn(registry.folder);
  const other = files.filter((file) => !/^(src|ffi)\/[\w/]+\.ts$/.test(file));
  assert.deepEqual(other, ["CHANGELOG.md", "LICENSE", "README.md", "deno.json", "mod.ts"]);
  for (const file of ["CHANGELOG.md", "LICENSE", "README.md"]) {
    assert.equal(readFileSync(join(registry.folder, file), "utf8"), readFileSync(join(root, file), "utf8"));
  }
  for (const file of ["ffi/deno.ts", "src/backend/threads/main.ts"]) assert.ok(files.includes(file), file);
  // What is in the package is reached from an entry point; the rest is for this repository.
  assert.deepEqual(files.filter((file) => file.endsWith(".ts")), [...reached(registry.folder)].sort());
  // 20 MB may be published (jsr-io/jsr, api/src/tarball.rs); this keeps an eye on what a user downloads.
  const { size } = statSync(registry.archive);
  assert.ok(size > 200_000 && size < MIB, `${size} bytes`);
  // Which module serves a user's device is the user's word, an absolute URL: nothing for an import map to resolve.
  const warnings = [...(stdout + stderr).matchAll(/^warning\[([\w-]+)\].*\n\s*--> (\S+):\d+:\d+$/gm)];
  assert.deepEqual(warnings.map(([, code, file]) => [code, file]), [
    ["unanalyzable-dynamic-import", join(root, "src/backend/threads/make_device.ts")],
  ]);
});

/** Modules that are reached from the entry points, by whatever import. */
function reached(folder: string): Set<string> {
  const found = new Set(Object.values(config.exports).map((path) => posix.normalize(path)));
  for (const file of found) {
    for (const specifier of importsOf(readFileSync(join(folder, file), "utf8"))) {
      if (specifier.startsWith(".")) found.add(posix.join(posix.dirname(file), specifier));
    }
  }
  return found;
}

/** Modules that an entry point needs at once, and those that it imports only when asked. */
async function graph(t: TestContext, entry: string): Promise<{ url: string; text: string }[]> {
  const { stdout } = await run(process.execPath, ["info", "--json", join(root, entry)], { signal: t.signal });
  const { roots, modules } = JSON.parse(stdout);
  const byUrl = new Map(modules.map((module: { specifier: string }) => [module.specifier, module]));
  const found = new Set<string>(roots);
  for (const url of found) {
    const { dependencies = [] } = (byUrl.get(url) ?? {}) as { dependencies?: Dependency[] };
    for (const { code, isDynamic } of dependencies) {
      if (code?.specifier?.startsWith("file:") && isDynamic !== true) found.add(code.specifier);
    }
  }
  return [...found].map((url) => ({ url, text: readFileSync(new URL(url), "utf8") }));
}

/** A row of `deno info --json`. */
interface Dependency {
  readonly code?: { readonly specifier?: string };
  readonly isDynamic?: boolean;
}

test("the registry's own rules are kept, which publishing to it alone would show", LIMIT, async (t) => {
  const registry = await published(t);
  // Its rules as they are in jsr-io/jsr: paths in crates/jsr_types/src/ids.rs, …
  const files = filesIn(registry.folder);
  assert.equal(new Set(files.map((file) => file.toLowerCase())).size, files.length);
  for (const file of files) {
    assert.ok(file.length < 155 && posix.basename(file).length <= 95, file);
    assert.match(file, /^[\w.][\w./-]*$/);
    assert.doesNotMatch(file, /(^|\/)(aux|con|nul|prn|com\d|lpt\d)(\.|\/|$)/i);
  }
  // … one licence by its identifier, and no expression of several, in api/src/tarball.rs, …
  assert.match(config.license, /^[\w.-]+$/);
  const [expression] = readFileSync(join(root, "LICENSE"), "utf8").split("\n");
  assert.ok(expression.replace("SPDX-License-Identifier: ", "").split(" OR ").includes(config.license));
  for (const path of Object.values(config.exports)) assert.ok(files.includes(posix.normalize(path)), path);
  // … imports in api/src/analysis.rs.
  for (const file of files.filter((file) => file.endsWith(".ts"))) {
    const text = readFileSync(join(registry.folder, file), "utf8");
    for (const specifier of importsOf(text)) {
      assert.match(specifier, /^(\.\.?\/|node:|npm:\/?(@[\w.-]+\/)?[\w.-]+@[\d.]+)/, `${file}: ${specifier}`);
    }
    assert.doesNotMatch(text, /^declare (global|module)|^\s*\/\/\/ <reference/m, file);
  }
  // It refuses text as a module in what an entry point needs at once (api/src/analysis.rs builds its graph without).
  for (const entry of Object.values(config.exports)) {
    const modules = await graph(t, entry);
    assert.ok(modules.length > 1, entry);
    for (const { url, text } of modules) {
      assert.doesNotMatch(text, /\bwith \{ type: "text" \}/, `${entry}: ${url}`);
    }
  }
});

test("every entry point has its types and runs", LIMIT, async (t) => {
  const registry = await published(t);
  const folder = tempDir(t);
  // As a user begins.
  await deno(t, registry, folder, "add", `jsr:${config.name}`);
  const { imports } = JSON.parse(readFileSync(join(folder, "deno.json"), "utf8"));
  assert.deepEqual(imports, { [config.name]: `jsr:${config.name}@^${config.version}` });
  const names = Object.keys(config.exports).map((key) => posix.join(config.name, key));
  const program = [
    ...names.map((name, i) => `import * as m${i} from ${JSON.stringify(name)};`),
    `const all = [${names.map((_, i) => `m${i}`)}];`,
    "console.log(all.filter((module) => Object.keys(module).length > 0).length);",
    // Types come along: this would not pass a check otherwise.
    `import { type Chain, defineDevice } from ${JSON.stringify(config.name)};`,
    "// @ts-expect-error: a queue's handler takes a chain",
    "defineDevice({ type: 4, queues: [(chain: string) => chain.length] });",
    "export const handler = (chain: Chain): number => chain.readable.byteLength;",
    "",
  ];
  writeFileSync(join(folder, "all.ts"), program.join("\n"));
  await deno(t, registry, folder, "check", "all.ts");
  const stdout = await deno(t, registry, folder, "run", "--allow-ffi", "all.ts");
  assert.equal(stdout.trim(), String(names.length));
});

/** Programs of a Markdown text that serve a device at a path, with what it is. */
function programsIn(markdown: string): { text: string; socket: string }[] {
  const blocks = [...markdown.matchAll(/^```ts.*\n([^]*?)^```$/gm)].map(([, text]) => text);
  return blocks.flatMap((text) => {
    const path = /^await serve\(\w+, \{ socketPath: "([^"]+)" \}\);$/m.exec(text);
    return path === null ? [] : [{ text, socket: path[1] }];
  });
}

test("README's first device is served from there", LIMIT, async (t) => {
  const registry = await published(t);
  const folder = tempDir(t);
  const [{ text, socket: said }] = programsIn(readFileSync(join(registry.folder, "README.md"), "utf8"));
  assert.match(text, /type: 4,/);
  const socket = join(folder, "rng.sock");
  writeFileSync(join(folder, "rng.ts"), text.replace(said, socket));
  await deno(t, registry, folder, "add", `jsr:${config.name}`);
  const child = start(t, registry, ["run", "--allow-ffi", "rng.ts"], folder);
  await child.waitListening(socket, 60_000);
  const frontEnd = await FrontEnd.connect(socket);
  assert.equal((await frontEnd.request("GET_QUEUE_NUM", undefined)).value, 1n);
  frontEnd.close();
  assert.equal(child.code, undefined, child.output);
});

realTest("README's disk in TypeScript is served from there", ["qemu-io", "libblkio"], LIMIT, async (t) => {
  const registry = await published(t);
  const folder = tempDir(t);
  const programs = programsIn(readFileSync(join(registry.folder, "README.md"), "utf8"));
  const { text, socket: said } = programs.find(({ text }) => text.includes("BlkDevice")) ?? assert.fail();
  const socket = join(folder, "disk.sock");
  writeFileSync(join(folder, "disk.ts"), text.replace(said, socket));
  writeFileSync(join(folder, "disk.img"), "");
  truncateSync(join(folder, "disk.img"), 16 * MIB);
  await deno(t, registry, folder, "add", `jsr:${config.name}`);
  const child = start(t, registry, ["run", "--allow-ffi", "disk.ts"], folder);
  await child.waitListening(socket, 60_000);
  await qemuIo(socket, "write -P 7 1M 3M", "read -P 7 1M 3M", "read -P 0 4M 1M");
  assert.equal(readFileSync(join(folder, "disk.img"))[3 * MIB], 7);
  assert.equal(child.code, undefined, child.output);
});

realTest(
  "the command of README and of the documentation serves a disk",
  ["qemu-io", "libblkio"],
  LIMIT,
  async (t) => {
    const registry = await published(t);
    const said = commandsIn(
      readFileSync(join(registry.folder, "src/cli/mod.ts"), "utf8"),
      /deno run --allow-ffi jsr:.* --blk-file=\S+/g,
    );
    assert.equal(said.length, 1);
    const readme = readFileSync(join(registry.folder, "README.md"), "utf8");
    assert.ok(readme.includes(`deno ${said[0].slice(0, 4).join(" ")}`), "README says it in the same words");
    for (const more of [[], ["--workers=2", "--num-queues=2"]]) {
      const folder = tempDir(t);
      const socket = join(folder, "disk.sock");
      writeFileSync(join(folder, "disk.img"), "");
      truncateSync(join(folder, "disk.img"), 16 * MIB);
      const args = said[0].map((word) => word.replace("/tmp/disk.sock", socket));
      const child = start(t, registry, [...args, ...more], folder);
      await child.waitLine(/^vhost-user blk: .* on /, 60_000);
      registry.takeRequests();
      await qemuIo(
        socket,
        "write -P 5 0 4M",
        "aio_write -P 6 4M 4M",
        "aio_flush",
        "read -P 5 0 4M",
        "read -P 6 4M 4M",
      );
      // It has come with all that it needs: no module is asked for later, when a sandbox may be closed.
      assert.deepEqual(registry.takeRequests(), []);
      assert.equal(child.code, undefined, child.output);
      await child.stop();
    }
  },
);

realTest(
  "a device of one's own runs in threads, from the net and from a file",
  ["qemu-io", "libblkio"],
  LIMIT,
  async (t) => {
    const registry = await published(t);
    const folder = tempDir(t);
    const socket = join(folder, "disk.sock");
    writeFileSync(
      join(folder, "disk.ts"),
      `import { BlkDevice, MemoryStorage } from "jsr:${config.name}/devices/blk";
     export default (options: { size: number }) =>
       new BlkDevice({ storage: new MemoryStorage(options.size), numQueues: 2 });
    `,
    );
    const permissions = ["--allow-ffi", `--allow-read=${folder}/disk.ts`];
    const module = `jsr:${config.name}/cli`;
    const device = [
      "run",
      "./disk.ts",
      `--socket-path=${socket}`,
      "--option",
      `size=${16 * MIB}`,
      "--workers=2",
    ];
    const child = start(t, registry, ["run", ...permissions, module, ...device], folder);
    await child.waitLine(/^vhost-user run: .* on /, 60_000);
    await qemuIo(socket, "write -P 9 0 1M", "read -P 9 0 1M");
    assert.equal(child.code, undefined, child.output);
  },
);

realTest(
  "a device of one's own is served anew when it is saved",
  ["qemu-io", "libblkio"],
  LIMIT,
  async (t) => {
    const registry = await published(t);
    const folder = tempDir(t);
    const socket = join(folder, "disk.sock");
    const save = (mib: number): void =>
      writeFileSync(
        join(folder, "disk.ts"),
        `import { BlkDevice, MemoryStorage } from "jsr:${config.name}/devices/blk";
       export default new BlkDevice({ storage: new MemoryStorage(${mib * MIB}) });
      `,
      );
    save(16);
    const flags = ["--allow-ffi", `--allow-read=${folder}`, "--allow-run", "--allow-env"];
    const args = ["run", "./disk.ts", `--socket-path=${socket}`, "--watch"];
    const child = start(t, registry, ["run", ...flags, `jsr:${config.name}/cli`, ...args], folder);
    await child.waitLine(/ on .*disk\.sock/, 60_000);
    assert.match(await qemuIo(socket, "length"), /^16 MiB$/m);
    save(32);
    // It says once more where it serves.
    for (
      const end = Date.now() + 60_000;
      child.output.match(/ on .*disk\.sock$/gm)?.length !== 2;
      await sleep(20)
    ) {
      assert.ok(child.code === undefined && Date.now() < end, child.output);
    }
    assert.match(await qemuIo(socket, "length"), /^32 MiB$/m);
  },
);

test("what is cached once needs no registry any more, threads included", LIMIT, async (t) => {
  const registry = await published(t);
  const folder = tempDir(t);
  const module = `jsr:${config.name}/cli`;
  await deno(t, registry, folder, "cache", module);
  registry.takeRequests();
  const args = ["blk", `--socket-path=${folder}/s`, "--storage=mem:1M", "--workers=2"];
  const child = start(t, registry, ["run", "--cached-only", "--allow-ffi", module, ...args], folder);
  await child.waitLine(/^vhost-user blk: .* on /, 60_000);
  assert.deepEqual(registry.takeRequests(), []);
});

test("it is installed as a command, and compiled", LIMIT, async (t) => {
  const registry = await published(t);
  const folder = tempDir(t);
  const options = { cwd: folder, env: registry.env, signal: t.signal, timeout: LIMIT.timeout };
  const page = readFileSync(join(root, "docs/packaging.md"), "utf8");
  const said = commandsIn(page, /^deno (install|compile) .* jsr:\S+$/gm);
  assert.deepEqual(said.map(([command]) => command), ["install", "compile"]);
  const [install, compile] = said;
  await run(process.execPath, [...install, `--root=${folder}`], options);
  const PATH = `${dirname(process.execPath)}:${process.env.PATH}`;
  const { stdout } = await run(join(folder, "bin/vhost-user"), ["--version"], {
    ...options,
    env: { ...registry.env, PATH },
  });
  assert.equal(stdout.trim(), `vhost-user ${config.version}`);
  // The runtime that an executable has cannot be downloaded here: tests/package/compile_test.ts.
  const env = { ...registry.env, DENORT_BIN: which("true") ?? assert.fail() };
  await run(process.execPath, compile, { ...options, env });
  const executable = readFileSync(join(folder, "vhost-user"));
  for (const path of ["src/cli/mod.ts", "src/cli/web_terminal.ts", "src/backend/threads/main.ts"]) {
    assert.ok(executable.includes(`${registry.url}/${config.name}/${config.version}/${path}`), path);
    assert.ok(executable.includes(readFileSync(join(registry.folder, path))), path);
  }
});

test("the terminal in the browser comes along", LIMIT, async (t) => {
  const registry = await published(t);
  const folder = tempDir(t);
  const flags = ["--allow-ffi", "--allow-net=127.0.0.1:0", "--allow-env=WS_NO_BUFFER_UTIL"];
  const args = ["console", "--consoles=web:127.0.0.1:0", `--socket-path=${folder}/socket`];
  const child = start(t, registry, ["run", ...flags, `jsr:${config.name}/cli`, ...args], folder);
  const [url] = /http:\S+/.exec(await child.waitLine(/ is http/, 60_000)) ?? [];
  for (const file of ["", "xterm.js", "xterm.css", "fit.js", "page.js"]) {
    const answer = await fetch(new URL(file, String(url)));
    assert.equal(answer.status, 200, file);
    assert.ok((await answer.text()).length > 100, file);
  }
  assert.ok(existsSync(join(folder, "socket")));
});
