import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { tempDir } from "../support/cleanup.ts";
import { root, startDeno, startExample } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { Child } from "../support/process.ts";
import { type Block, blocks, commands } from "./page.ts";

// The page docs/writing-a-device.md: its listings are files, and what it says to type can be typed.

test("the listings are the files", { timeout: 5000 }, () => {
  const rest = new Map<string, string>();
  const listings = blocks().filter(({ language }) => language === "ts" || language === "c");
  for (const { text, file } of listings) {
    const left = rest.get(file) ?? readFileSync(join(root, file), "utf8");
    // A method by itself is listed at the margin.
    const found = [text, text.replaceAll(/^(?=.)/gm, "  ")].find((each) => left.includes(`${each}\n`));
    assert.ok(found !== undefined, `${file} has not what the page lists:\n${text}`);
    rest.set(file, left.replace(`${found}\n`, () => ""));
  }
  assert.deepEqual([...rest.keys()], [
    "examples/rng.ts",
    "examples/writing/rng.ts",
    "examples/writing/rng_test.ts",
    "examples/writing/store.ts",
    "examples/writing/store_test.ts",
    "examples/writing/serve_store.ts",
    "examples/writing/linux/virtio_store.c",
    "tests/real/guest_store_test.ts",
  ]);
  for (const [file, text] of rest) {
    // What an example is, is said at its head.
    const left = text.replace(/^\/\*\*\n[^]*?\n \* @module\n \*\/\n/, "");
    if (file.endsWith(".ts")) assert.equal(left.trim(), "", `${file} has more than the page lists`);
  }
});

test("the module of the page is served as it says", { timeout: 60_000 }, async (t) => {
  const socket = join(tempDir(t), "rng.sock");
  const said = commands().filter((command) => command.includes("src/cli/mod.ts run "));
  assert.equal(said.length, 1);
  const args = said[0].replace("/tmp/rng.sock", socket).split(" ").slice(2);
  assert.equal(args.shift(), "--allow-ffi");
  const child = startDeno(t, args, { cwd: root });
  await child.waitSocket(socket, 30_000);
});

/** Types what the page types into a guest, and compares what is on the screen with the page. */
async function type(t: TestContext, block: Block, arguments_: readonly string[]): Promise<void> {
  const guest = Child.start(t, join(root, "scripts/guest-shell"), arguments_, { pipe: true });
  let screen = "";
  let raw = "";
  guest.stdout.setEncoding("utf8").on("data", (text: string) => {
    raw += text;
    // At each prompt the shell asks the terminal where its cursor is.
    screen = raw.replaceAll("\r", "").replaceAll("\x1b[6n", "");
  });
  const prompt = "guest# ";
  let seen = 0;
  for (const line of block.text.split("\n").filter((line) => line.startsWith(prompt))) {
    for (const deadline = Date.now() + 90_000;; await sleep(10)) {
      const at = screen.indexOf(prompt, seen);
      if (at >= 0) {
        seen = at + prompt.length;
        break;
      }
      assert.ok(guest.code === undefined && Date.now() < deadline, `no prompt: ${screen}\n${guest.output}`);
    }
    guest.stdin.write(`${line.slice(prompt.length)}\n`);
  }
  assert.equal(await guest.waitEnd(90_000), 0, guest.output);
  const session = screen.slice(screen.indexOf(prompt)).split("\n");
  assert.deepEqual(session.slice(0, block.text.split("\n").length), block.text.split("\n"));
}

/** The arguments that the page gives to the guest's QEMU, with another socket. */
function argumentsFor(name: string, socket: string): string[] {
  const said = commands().filter((each) => each.startsWith("scripts/guest-shell") && each.includes(name));
  assert.equal(said.length, 1);
  return said[0].split(" ").slice(1).map((each) => each.replace(name, socket));
}

const sessions = blocks().filter(({ language }) => language === "console");

realTest("the page's first guest has entropy", ["qemu11", "guest"], {}, async (t) => {
  assert.ok(commands().includes("deno run --allow-ffi examples/rng.ts"));
  const socket = join(tempDir(t), "rng.sock");
  const child = startExample(t, "rng", socket);
  await child.waitSocket(socket);
  await type(t, sessions[0], argumentsFor("/tmp/rng.sock", socket));
  assert.equal(child.code, undefined, child.output);
});

realTest("the page's second guest has a store", ["qemu11", "guest"], {}, async (t) => {
  const folder = tempDir(t);
  const [socket, file] = [join(folder, "store.sock"), join(folder, "store.jsonl")];
  const said = commands().find((each) => each.startsWith("deno run") && each.endsWith("/serve_store.ts"));
  const [, , ffi, ...args] = (said ?? "").replaceAll("/tmp/store.jsonl", file).split(" ");
  assert.equal(ffi, "--allow-ffi");
  args[args.length - 1] = join(root, args[args.length - 1]);
  const child = startDeno(t, [...args, socket, file]);
  await child.waitLine(/^a store on /);
  await type(t, sessions[1], argumentsFor("/tmp/store.sock", socket));
  const saved = '["name","Ada"]\n["name","Grace"]\n';
  assert.equal(readFileSync(file, "utf8"), saved);
  assert.equal(child.code, undefined, child.output);
});
