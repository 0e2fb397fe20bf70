import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { FrontEnd } from "../../src/frontend/mod.ts";
import { recording } from "../coverage/destination.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { imageOf } from "../support/image.ts";
import { NbdServer, startNbdPort } from "../support/nbd_server.ts";
import { root, startDisk } from "../support/our_backend.ts";
import { type PeerName, realTest } from "../support/peers.ts";
import { Child, run } from "../support/process.ts";
import { runtime, splitWords, startWords } from "../support/runtime.ts";
import { commandsOf, exampleFiles, moduleDoc, wordsOf } from "./commands.ts";
import { freePort } from "./support.ts";

// Every file in examples/, whatever it is called: it says what it is, docs/examples.md names it, and the commands that it gives
// work as they stand there, with the permissions that they name and no others.

const files = exampleFiles();
/** Programs and modules; the rest belongs to them. */
const modules = files.filter((file) => file.endsWith(".ts") && !file.endsWith("_test.ts"));

/** What a command needs around it. */
interface Setting {
  /** Texts of the command and of the file that stand for others here, such as ports that may be taken. */
  readonly instead?: Readonly<Record<string, string>>;
  /** What it has on its standard output when it ends by itself. */
  readonly ends?: RegExp;
  /** More arguments. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** The settings of what cannot just be started, by file; what there is to be installed; and why one is not run under Node. */
interface Needs {
  readonly peers?: readonly PeerName[];
  readonly denoOnly?: string;
  set?(t: TestContext, folder: string, command: string): Promise<Setting> | Setting;
}

/** A file of zeros on a web server that answers requests for ranges. */
async function webFile(t: TestContext): Promise<string> {
  const size = 1 << 20;
  const server = createServer(({ headers, method }, response) => {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "") ?? [];
    const length = from === undefined ? size : Number(to) - Number(from) + 1;
    response.writeHead(from === undefined ? 200 : 206, {
      "content-length": length,
      "accept-ranges": "bytes",
      ...from === undefined ? {} : { "content-range": `bytes ${from}-${to}/${size}` },
    });
    response.end(method === "HEAD" ? undefined : Buffer.alloc(length));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onEnd(t, () => {
    server.closeAllConnections();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A store that speaks as S3 does. */
async function objectStore(t: TestContext): Promise<string> {
  const port = await freePort();
  const words = startWords(["--allow-all", "--no-check"], [join(root, "tests/examples/s3_server.ts")]);
  const child = Child.start(t, process.execPath, [...words, tempDir(t), String(port)], {
    env: { NO_COLOR: "1" },
  });
  for (;; await sleep(20)) {
    const up = await fetch(`http://127.0.0.1:${port}/`).then((answer) => answer.body?.cancel(), () => null);
    if (up !== null) return `127.0.0.1:${port}`;
    assert.equal(child.code, undefined, child.output);
  }
}

const NEEDS: Readonly<Record<string, Needs>> = {
  "examples/demo.ts": {
    peers: ["qemu", "guest"],
    denoOnly: "it is a task of deno.json",
    set: () => ({ args: ["--size=16"], ends: /equal|has used a disk/ }),
  },
  "examples/frontend_disk.ts": {
    set: async (t, folder) => {
      const contents = Buffer.alloc(4096, "sector ");
      await startDisk(t, { file: imageOf(t, contents), socket: join(folder, "disk.sock") });
      return { ends: /sector /, instead: { " > sector.bin": "" } };
    },
  },
  "examples/http_disk.ts": {
    set: async (t) => {
      const place = await webFile(t);
      return { instead: { "https://example.org": `http://${place}`, "=example.org": `=${place}` } };
    },
  },
  "examples/s3_disk.ts": {
    set: async (t) => {
      const place = await objectStore(t);
      return {
        instead: { "https://s3.example.org": `http://${place}`, "s3.example.org": place, "=20G": "=20M" },
        env: { AWS_ACCESS_KEY_ID: "S3RVER", AWS_SECRET_ACCESS_KEY: "S3RVER" },
      };
    },
  },
  "examples/encrypted_disk.ts": {
    set: async (_t, folder, command) => {
      const file = join(folder, "disk.enc");
      const setting = {
        instead: { "disk.enc": "/tmp/disk.enc", "=10G": "=1M" },
        env: { DISK_PASSPHRASE: "correct horse" },
      };
      if (command.includes("--create")) return { ...setting, ends: /^/ };
      await run(process.execPath, [
        ...startWords(["--allow-all"], [join(root, "examples/encrypted_disk.ts")]),
        ...["--create=1M", file],
      ], { env: setting.env });
      return setting;
    },
  },
  "examples/metrics.ts": { set: async () => ({ instead: { "9464": String(await freePort()) } }) },
  "examples/web_console.ts": { set: () => ({ args: ["0"] }) },
  "examples/net_firewall.ts": { set: () => ({ instead: { "--stats=9465": "--stats=0" } }) },
  "examples/nbd_disk.ts": {
    peers: ["nbdkit"],
    set: async (t, folder) => {
      const port = await freePort();
      await NbdServer.startAt(t, join(folder, "nbd.sock"), "memory", "1M");
      await startNbdPort(t, port, "memory", "1M");
      return {
        instead: { "localhost:10809": `127.0.0.1:${port}`, "nbd://localhost": `nbd://127.0.0.1:${port}` },
      };
    },
  },
};

test("every example says what it is and how it is started", { timeout: 5000 }, () => {
  assert.ok(modules.length > 20, `${modules.length} modules`);
  for (const file of modules) {
    const doc = moduleDoc(file);
    assert.ok(doc !== undefined, `${file} has no module doc`);
    assert.match(doc, /^[A-Z][^]{20,}/, file);
    // What is imported by another and serves nothing has none.
    const serves = /\b(serve|parseArgs|process\.argv)\b|export default/.test(
      readFileSync(join(root, file), "utf8"),
    );
    const commands = commandsOf(file);
    assert.equal(commands.length > 0, serves, `${file}: ${commands.length} commands`);
    for (const command of commands) {
      assert.ok(/^deno task|=/.test(command) || command.includes(file), command);
    }
  }
});

test("every file of the examples is named on their page", { timeout: 5000 }, () => {
  const page = readFileSync(join(root, "docs/examples.md"), "utf8");
  const named = [...page.matchAll(/\]\(\.\.\/(examples\/[^)#]*)\)/g)].map(([, path]) =>
    path.replace(/\/$/, "")
  );
  for (const path of named) assert.ok(existsSync(join(root, path)), `the page names ${path}`);
  const missing = files.filter((file) => !named.some((path) => path === file || file.startsWith(`${path}/`)));
  assert.deepEqual(missing, []);
});

/** The socket that a program has made since, once somebody listens there. */
async function listening(child: Child, folder: string, before: readonly string[]): Promise<string> {
  for (const deadline = Date.now() + 60_000;; await sleep(10)) {
    const now = readdirSync(folder).filter((name) => name.endsWith(".sock") && !before.includes(name));
    for (const name of now) {
      try {
        // A bus for I2C wants a driver that takes its first feature.
        const frontEnd = await FrontEnd.connect(join(folder, name), { deviceFeatures: 1n });
        frontEnd.close();
        return join(folder, name);
      } catch (error) {
        if (!/ECONNREFUSED|ENOENT/.test(String(error))) throw error;
      }
    }
    assert.equal(child.code, undefined, `it has ended: ${child.output}`);
    assert.ok(Date.now() < deadline, `no socket: ${child.output}`);
  }
}

/** A copy of an example that has its files in `folder` rather than in /tmp. */
function copy(file: string, folder: string, translate: (text: string) => string): string {
  // Imports last: the checkout may lie in /tmp itself.
  const text = translate(readFileSync(join(root, file), "utf8")).replaceAll(
    /from "(\.\.?\/[^"]+)"/g,
    (_, path) => `from ${JSON.stringify(new URL(path, pathToFileURL(join(root, file))).href)}`,
  );
  const target = join(folder, "copy", basename(file));
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, text);
  return target;
}

async function follow(t: TestContext, file: string, command: string): Promise<void> {
  const folder = tempDir(t);
  const { instead = {}, ends, args = [], env: own = {} } = await NEEDS[file]?.set?.(t, folder, command) ?? {};
  const translate = (text: string): string =>
    Object.entries(instead).reduce((all, [from, to]) => all.replaceAll(from, to), text)
      .replaceAll(/\/tmp(?=[/"])/g, folder);
  const words = wordsOf(translate(command));
  const env: Record<string, string> = {
    NO_COLOR: "1",
    RUST_BACKTRACE: "0",
    DENO_NO_PROMPT: "1",
    DENO_NO_UPDATE_CHECK: "1",
    ...own,
  };
  for (; words[0].includes("="); words.shift()) {
    const [name, value] = words[0].split("=");
    env[name] = value;
  }
  const before = readdirSync(folder);
  let start: string[];
  if (words[1] === "task") start = [...words.slice(1), ...args];
  else {
    const script = copy(file, folder, translate);
    // The file stands for itself also where it may be read.
    const [flags, program] = splitWords(words.slice(2).map((word) => word.replaceAll(file, script)));
    const always = ["--no-lock", `--config=${join(root, "deno.json")}`, ...recording(process)];
    start = startWords([...always, ...flags], [...program, ...args]);
  }
  const child = Child.start(t, process.execPath, start, { cwd: root, env, pipe: ends !== undefined });
  if (ends === undefined) {
    await listening(child, folder, before);
    assert.doesNotMatch(child.output, /access to|permission|error/i);
    child.kill("SIGTERM");
    await child.waitEnd();
    return;
  }
  let output = "";
  child.stdout.on("data", (bytes: Buffer) => output += bytes);
  assert.equal(await child.waitEnd(80_000), 0, child.output);
  assert.match(output, ends);
}

for (const file of modules) {
  const { peers = [], denoOnly } = NEEDS[file] ?? {};
  if (runtime === "node" && denoOnly !== undefined) continue;
  for (const command of commandsOf(file)) {
    realTest(`works as it says: ${command}`, peers, { timeout: 120_000 }, (t) => follow(t, file, command));
  }
}
