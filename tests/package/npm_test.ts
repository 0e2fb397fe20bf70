import assert from "node:assert/strict";
import { readdirSync, readFileSync, truncateSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { readConfig, root } from "../../scripts/npm/files.ts";
import { realTest } from "../support/peers.ts";
import type { Child } from "../support/process.ts";
import { qemuIo } from "../support/qemu_io.ts";
import { defects } from "./contents.ts";
import { NODES, packed, Project } from "./npm_project.ts";

// The package for npm as its users get it: from a tarball, in a project of their own, under each version of Node that it is
// for. `VHOST_NPM_PACKAGE=FILE` has them try another tarball than that of `deno task pack-npm`: what dnt has made.

const { name, version, exports } = readConfig();

/** What a project needs to have its types checked. The types of the oldest Node, so that nothing newer is needed. */
const CHECKER = ["typescript@5.9.3", "@types/node@22.20.5"];

const TSCONFIG = JSON.stringify({
  compilerOptions: {
    module: "nodenext",
    moduleResolution: "nodenext",
    target: "es2023",
    types: ["node"],
    strict: true,
    skipLibCheck: false,
    noEmit: true,
  },
  include: ["*.ts"],
});

/** The code of a language in the README of the package. */
function blocks(language: string): string[] {
  const text = readFileSync(join(root, "scripts/npm/README.md"), "utf8");
  return [...text.matchAll(/^```(\w+)\n([^]*?)^```$/gm)].filter((match) => match[1] === language).map((
    match,
  ) => match[2]);
}

/** How many threads a process has. */
function threadsOf({ pid }: Child): number {
  return readdirSync(`/proc/${pid}/task`).length;
}

/** Has a disk written and read. */
async function use(project: Project, socket: string): Promise<void> {
  await qemuIo(join(project.folder, socket), "write -P 0x33 1M 64k", "read -P 0x33 1M 64k", "flush");
}

realTest(
  "the package for npm, installed from its tarball in an empty project, in Node 22, 24 and 26",
  [...NODES, "qemu-io", "libblkio"],
  { timeout: 900_000 },
  async (t) => {
    const file = await packed(t, t.signal);
    const project = await Project.install(t, t.signal, file, ...CHECKER);

    await t.test("it has what it should have, and nothing else", () => {
      assert.deepEqual(defects(project.contents()), []);
    });

    await t.test("types of all exports, and of what README shows, are checked", async () => {
      await checkTypes(t, project);
    });

    const { stdout: help } = await project.run("node22", ["vhost-user", "--help"]);
    for (const node of NODES) {
      await t.test(`${node}: the program`, async () => {
        const told = await project.run(node, ["vhost-user", "--version"]);
        assert.equal(told.stdout, `vhost-user ${version}\n`);
        assert.equal((await project.run(node, ["vhost-user", "--help"])).stdout, help);
        const wrong = await project.run(node, ["vhost-user", "blq"], { check: false });
        assert.equal(wrong.code, 2);
        assert.match(wrong.stderr, /blq/);
      });

      await t.test(`${node}: every export is there, and none runs a program`, async () => {
        const names = Object.keys(exports).map((path) => path.replace(/^\./, name));
        const code = `for (const name of ${JSON.stringify(names)}) {
          if (Object.keys(await import(name)).length === 0) throw new Error(name);
        }
        console.log("all");`;
        project.write("all.js", code);
        assert.equal((await project.run(node, ["node", "all.js"])).stdout, "all\n");
      });

      await t.test(`${node}: what README says, literally`, async () => {
        await followReadme(project, node);
      });

      await t.test(`${node}: in threads`, async () => {
        await serveInThreads(project, node);
      });

      await t.test(`${node}: the terminal in the browser`, async () => {
        await openTerminal(project, node);
      });
    }
  },
);

async function checkTypes({ signal }: TestContext, project: Project): Promise<void> {
  project.write("tsconfig.json", TSCONFIG);
  const all = Object.keys(exports).map((path, i) =>
    `export * as m${i} from "${path.replace(/^\./, name)}";\n`
  );
  project.write("all_types.ts", all.join(""));
  for (const code of blocks("ts")) project.write(nameOf(code), code);
  // What has types says what is wrong; it is all that is.
  project.write(
    "wrong.ts",
    'import { MemoryStorage } from "@vhost/user/devices/blk";\nnew MemoryStorage("64M");\n',
  );
  const { code, stdout } = await project.run("node24", ["tsc"], { signal, timeout: 120_000, check: false });
  project.remove("wrong.ts");
  assert.notEqual(code, 0);
  assert.match(stdout, /^wrong\.ts\(2,19\): error TS2345: .*'string'/);
  assert.equal(stdout.match(/error TS/g)?.length, 1, stdout);
}

/** The file that an example is meant to be: its first line says it. */
function nameOf(code: string): string {
  const [, file] = /^\/\/ (\w+\.ts)\n/.exec(code) ?? [];
  assert.ok(file !== undefined, code);
  return file;
}

async function followReadme(project: Project, node: typeof NODES[number]): Promise<void> {
  const [install, serve, use, ...more] = blocks("sh");
  assert.deepEqual(more, []);
  // Project.install() has done this, with the tarball.
  assert.equal(install, `npm install ${name}\n`);
  const server = project.start(node, ["sh", "-ec", serve]);
  await server.waitSocket(join(project.folder, "disk.sock"), 60_000);
  const { stdout, stderr } = await project.run(node, ["sh", "-ec", use]);
  assert.doesNotMatch(stdout + stderr, /fail|error|invalid|verification/i);
  assert.deepEqual(
    readFileSync(join(project.folder, "disk.img")).subarray(0, 1 << 20),
    Buffer.alloc(1 << 20, 0x5a),
  );
  await server.stop();

  const programs = blocks("ts");
  assert.deepEqual(programs.map(nameOf), ["disk.ts", "rng.ts"]);
  for (const code of programs) project.write(nameOf(code), code);
  const disk = project.start(node, ["node", "disk.ts"]);
  await disk.waitSocket(join(project.folder, "memory.sock"), 60_000);
  await qemuIo(join(project.folder, "memory.sock"), "write -P 0x77 0 1M", "read -P 0x77 0 1M");
  assert.equal(disk.output.replace(/^.*(ExperimentalWarning|--trace-warnings).*\n/gm, ""), "");
  await disk.stop();
  project.remove("memory.sock");
  const rng = project.start(node, ["node", "rng.ts"]);
  await rng.waitSocket(join(project.folder, "rng.sock"), 60_000);
  await rng.stop();
  project.remove("rng.sock");
}

async function serveInThreads(project: Project, node: typeof NODES[number]): Promise<void> {
  project.write("threads.img", "");
  truncateSync(join(project.folder, "threads.img"), 64 << 20);
  const image = ["vhost-user", "blk", "--blk-file=threads.img"];
  const module = ["vhost-user", "run", "./own.ts", "--option=mib=64"];
  project.write(
    "own.ts",
    'import { BlkDevice, MemoryStorage } from "@vhost/user/devices/blk";\n' +
      "const shared = new MemoryStorage(64 << 20);\n" +
      "export default ({ mib }: { mib: number }): BlkDevice => new BlkDevice({ storage: shared, id: `${mib}M` });\n",
  );
  for (const [i, words] of [image, module].entries()) {
    const alone = project.start(node, [...words, `--socket-path=alone${i}.sock`]);
    await alone.waitSocket(join(project.folder, `alone${i}.sock`), 60_000);
    const server = project.start(node, [...words, `--socket-path=threads${i}.sock`, "--workers=2"]);
    await server.waitSocket(join(project.folder, `threads${i}.sock`), 60_000);
    await use(project, `threads${i}.sock`);
    // Two that run rings, and one that each of them sleeps in.
    assert.ok(
      threadsOf(server) >= threadsOf(alone) + 2,
      `${threadsOf(server)} threads, ${threadsOf(alone)} without`,
    );
    for (const child of [alone, server]) {
      child.kill("SIGTERM");
      assert.equal(await child.waitEnd(), 0, child.output);
    }
  }
}

async function openTerminal(project: Project, node: typeof NODES[number]): Promise<void> {
  const words = ["vhost-user", "console", "--socket-path=console.sock", "--consoles=web:0", "--verbose"];
  const server = project.start(node, words);
  const line = await server.waitLine(/http:/, 60_000);
  const [url] = /http:\/\/127\.0\.0\.1:\d+\/\w+\//.exec(line) ?? [];
  assert.ok(url !== undefined, line);
  for (
    const [path, sign] of [["xterm.js", /Terminal/], ["xterm.css", /\.xterm/], [
      "fit.js",
      /FitAddon/,
    ]] as const
  ) {
    const answer: Response = await fetch(url + path);
    assert.equal(answer.status, 200);
    assert.match(await answer.text(), sign);
  }
  server.kill("SIGTERM");
  await server.waitEnd();
}
