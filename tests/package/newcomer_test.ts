import assert from "node:assert/strict";
import { mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { test, type TestContext } from "node:test";
import { JsrRegistry } from "./jsr_registry.ts";
import { packed } from "./npm_project.ts";
import { npmRegistry } from "./npm_registry.ts";
import { tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { type PeerName, peerPath, realTest } from "../support/peers.ts";
import { readPage } from "../docs/markdown.ts";
import { follow, needs, type Newcomer } from "./newcomer.ts";

// The commands of README and of docs/start.md, as they stand, in an empty directory: with Deno and what JSR would have, with
// Node and what npm would have, and with nothing but npm.

const LIMIT = { timeout: 400_000 };
const QEMU = ["qemu", "qemu-io", "libblkio"] as const satisfies readonly PeerName[];
/** The oldest that the package is for; npm_test.ts tries the others. */
const NODE = "node22" satisfies PeerName;

const pages = ["README.md", "docs/start.md"].map((path) => readPage(path));

/** Has the registries of JSR and npm replaced by stand-ins, to which this checkout was published. */
async function withDeno(t: TestContext): Promise<Newcomer> {
  const registry = await JsrRegistry.start(t);
  await registry.publish(t.signal);
  const bin = join(tempDir(t), "bin");
  mkdirSync(bin);
  symlinkSync(process.execPath, join(bin, "deno"));
  return { uses: "Deno", env: { ...registry.env, PATH: `${bin}:${process.env.PATH}` } };
}

async function withNode(t: TestContext): Promise<Newcomer> {
  const registry = await npmRegistry(t, await packed(t, t.signal));
  const env = { ...registry, NO_COLOR: "1", PATH: `${dirname(peerPath(NODE))}:${process.env.PATH}` };
  return { uses: "Node", env };
}

for (const page of pages) {
  const { path, blocks } = page;
  const runs = blocks.filter((block) => needs(block) === undefined);
  if (runs.length === 0) {
    test(`${path} has no commands for an empty directory yet`, { skip: true }, () => {});
    continue;
  }

  realTest(`${path} with Deno`, QEMU, LIMIT, async (t) => {
    const commands = await follow(t, page, await withDeno(t));
    assert.ok(commands.some((command) => /^deno run .*jsr:@vhost\/user/.test(command)), commands.join("\n"));
  });

  realTest(`${path} without Deno: by npx`, QEMU, LIMIT, async (t) => {
    const newcomer = await withDeno(t);
    // The page says to type this in place of the other.
    const words = /`(npx -y deno@[\d.]+)`/.exec(readFileSync(join(root, path), "utf8"));
    assert.ok(words !== null, `${path} does not say how`);
    const commands = await follow(t, page, {
      ...newcomer,
      env: { ...newcomer.env, PATH: process.env.PATH ?? "" },
      typed: (text) => text.replace(/^deno /gm, `${words[1]} `),
    });
    assert.ok(commands.some((command) => command.startsWith(words[1])), commands.join("\n"));
  });

  realTest(`${path} with Node`, [...QEMU, NODE], LIMIT, async (t) => {
    const commands = await follow(t, page, await withNode(t));
    assert.ok(commands.some((command) => command.startsWith("npx vhost-user")), commands.join("\n"));
  });
}

test("what a page shows and is not so is found", LIMIT, async (t) => {
  const wrong = readPage("wrong.md", "```sh\necho one\n```\n\n```text\ntwo\n```\n");
  await assert.rejects(
    follow(t, wrong, { uses: "Deno", env: {} }),
    /wrong\.md: in vain:\ntwo\n\nshown:\none\n/,
  );
  const fails = readPage("fails.md", "```sh\nfalse\ntrue\n```\n");
  await assert.rejects(follow(t, fails, { uses: "Deno", env: {} }), /ended with status 1/);
  const others = readPage(
    "others.md",
    "### With Node\n\n```sh\nfalse\n```\n\n### So\n\n```sh\necho $PWD\n```\n",
  );
  assert.deepEqual(await follow(t, others, { uses: "Deno", env: {} }), ["echo $PWD"]);
});
