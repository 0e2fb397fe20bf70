import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { main } from "../../src/cli/mod.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { tempDir } from "../support/cleanup.ts";
import { root, startDeno } from "../support/our_backend.ts";
import { runtime } from "../support/runtime.ts";
import { RequestDriver } from "../devices/request_driver.ts";
import { Modules } from "./modules.ts";

const LIMIT = { timeout: 60_000 };

/** Answers every request with the options that it was made with. */
const SAYS_OPTIONS = `
import { defineDevice } from "@vhost/user";
export default async function (options) {
  await Promise.resolve();
  const text = new TextEncoder().encode(JSON.stringify(options));
  return defineDevice({ type: 63, name: "options", queues: [(chain) => chain.write(text)] });
}`;
const FIXED = `
import { defineDevice } from "@vhost/user";
export default defineDevice({ type: 63, queues: [(chain) => chain.write(Uint8Array.of(5))] });`;

/** What a device answers. */
async function ask(driver: RequestDriver): Promise<string> {
  const { written, bytes } = await driver.request([], [1000]);
  return new TextDecoder().decode(bytes.subarray(0, written));
}

for (const workers of [0, 2]) {
  test(
    `a module's function makes the device from options${workers ? ", in every thread" : ""}`,
    LIMIT,
    async (t) => {
      const modules = new Modules(t);
      const module = modules.write("options.ts", SAYS_OPTIONS);
      const socket = modules.path("socket");
      const child = startDeno(t, [
        `--allow-read=${root},${modules.folder}`,
        join(root, "src/cli/mod.ts"),
        ...["run", module, `--socket-path=${socket}`, ...workers ? [`--workers=${workers}`] : []],
        ...[
          "--option",
          "size=8",
          "--option",
          "name=scratch",
          "--option=list=[1,null]",
          "--option",
          "odd=a=b",
        ],
      ]);
      await child.waitLine(/^vhost-user run: .*options\.ts on /);
      const driver = await RequestDriver.connect(t, socket);
      assert.deepEqual(JSON.parse(await ask(driver)), {
        size: 8,
        name: "scratch",
        list: [1, null],
        odd: "a=b",
      });
      driver.frontEnd.close();
      child.kill("SIGTERM");
      assert.equal(await child.waitEnd(), 0);
    },
  );
}

test("a module's device is served as it is; a function without options gets none", LIMIT, async (t) => {
  const modules = new Modules(t);
  for (const [name, source, expected] of [["fixed", FIXED, "\x05"], ["none", SAYS_OPTIONS, "{}"]]) {
    const module = modules.write(`${name}.ts`, source);
    const socket = modules.path(name);
    const child = startDeno(t, [
      `--allow-read=${modules.folder}`,
      ...[join(root, "src/cli/mod.ts"), "run", module, `--socket-path=${socket}`],
    ]);
    await child.waitLine(/^vhost-user run: /);
    const driver = await RequestDriver.connect(t, socket);
    assert.equal(await ask(driver), expected);
    driver.frontEnd.close();
    child.kill("SIGINT");
    assert.equal(await child.waitEnd(), 0);
  }
});

test("the example's disk is as large as its option says", LIMIT, async (t) => {
  const socket = join(tempDir(t), "socket");
  const child = startDeno(t, [
    ...[`--allow-read=${root}`, join(root, "src/cli/mod.ts"), "run", join(root, "examples/scratch_disk.ts")],
    ...[`--socket-path=${socket}`, "--option", "mib=3", "--option=id=abc", "--fault=blk.flush:error=EIO"],
  ]);
  await child.waitLine(/^vhost-user run: /);
  const driver = await BlkDriver.connect(socket);
  assert.deepEqual([driver.size, await driver.id()], [3 * 2 ** 20, "abc"]);
  await assert.rejects(driver.flush(), /I\/O error/);
  await driver.close();
  child.kill("SIGTERM");
  assert.equal(await child.waitEnd(), 0);
  assert.match(child.output, /^fault blk\.flush:error=EIO: 1 of 1 requests$/m);
});

/** Runs a command that ends by itself. */
async function command(...args: string[]): Promise<{ code: number; error: string }> {
  const error: string[] = [];
  const code = await main(args, { out: () => {}, error: (line) => error.push(line) });
  return { code, error: error.join("\n") };
}

test("what cannot be served is explained in a line", LIMIT, async (t) => {
  const modules = new Modules(t);
  const socket = `--socket-path=${modules.path("socket")}`;
  const cases: readonly [string, string, readonly string[], number, RegExp][] = [
    [
      "parse.ts",
      "export default {",
      [],
      1,
      /cannot load \S+parse\.ts: .*SyntaxError.* at \S+parse\.ts:1(:\d+)?$/,
    ],
    [
      "import.ts",
      'import "./gone.ts";',
      [],
      1,
      runtime === "deno"
        ? /cannot load \S+import\.ts: Module not found "\S+gone\.ts".* at \S+import\.ts:1:8$/
        : /cannot load \S+import\.ts: Cannot find module '\S+gone\.ts' imported from \S+import\.ts$/,
    ],
    ["throws.ts", 'throw new Error("no\\nluck");', [], 1, /cannot load \S+throws\.ts: no$/],
    ["none.ts", "export const a = 1;", [], 1, /default export must be a device, .*; got none$/],
    ["number.ts", "export default 5;", [], 1, /default export must be a device, .*; got number$/],
    [
      "makes.ts",
      "export default () => null;",
      [],
      1,
      /must be a device, .*; got a function that makes null$/,
    ],
    [
      "fails.ts",
      'export default () => { throw new TypeError("which disk?"); };',
      [],
      1,
      /fails\.ts: the function that makes the device has failed: which disk\?$/,
    ],
    ["rejects.ts", 'export default () => Promise.reject("no");', [], 1, /has failed: no$/],
    ["device.ts", FIXED, ["--option", "a=1"], 1, /default export is a device and takes no options/],
    ["device.ts", FIXED, ["--option", "a"], 2, /--option must be NAME=VALUE, got 'a'/],
    ["device.ts", FIXED, ["--option", "=1"], 2, /--option must be NAME=VALUE, got '=1'/],
    ["device.ts", FIXED, ["--option", "a=1", "--option=a=2"], 2, /--option: a is given twice/],
    ["device.ts", FIXED, ["--fault=device:ring=x:drop"], 2, /fault 'device:ring=x:drop': 'ring=x': expected/],
    ["device.ts", FIXED, ["--fault=device:error=EIO"], 2, /'error=EIO': answers of virtio device 63 have no/],
    [
      "device.ts",
      FIXED,
      ["--fault=device:drop", "--workers=2", "--standby=x"],
      2,
      /--standby must be a whole number/,
    ],
    ["device.ts", FIXED, ["--watch", "--standby=3"], 2, /--standby is for what --watch starts/],
  ];
  for (const [name, source, options, expected, said] of cases) {
    const { code, error } = await command("run", modules.write(name, source), socket, ...options);
    const [line, hint] = error.split("\n");
    assert.match(line, /^vhost-user run: /);
    assert.match(line, said, name);
    assert.equal(code, expected, name);
    assert.equal(hint, expected === 2 ? "Try 'vhost-user run --help'." : undefined);
  }
  assert.match(
    (await command("run", modules.path("not.ts"), socket)).error,
    /(Module not found|Cannot find module) \S+not\.ts/,
  );
  assert.match((await command("run", socket)).error, /which MODULE\?/);
});
