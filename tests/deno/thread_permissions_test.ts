import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { Child } from "../support/process.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { verify } from "../session/scene.ts";

const LIMIT = { timeout: 60_000 };

/** Starts a disk in two threads with exactly these permissions. */
function start(t: Scope, module: string, permissions: readonly string[]): { child: Child; socket: string } {
  const socket = join(tempDir(t), "socket");
  const args = ["blk", `--socket-path=${socket}`, "--storage=mem:1M", "--workers=2"];
  const child = Child.start(t, process.execPath, ["run", "--no-prompt", ...permissions, module, ...args], {
    env: { RUST_BACKTRACE: "0", NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
  });
  return { child, socket };
}

async function serves({ child, socket }: { child: Child; socket: string }): Promise<void> {
  await child.waitLine(/^vhost-user blk: .* on /);
  const driver = await BlkDriver.connect(socket, { numQueues: 2 });
  await verify(driver, 1);
  await driver.close();
  child.kill("SIGTERM");
  assert.equal(await child.waitEnd(), 0, child.output);
}

test("from a checkout, threads need leave to read it, and nothing more", LIMIT, async (t) => {
  await serves(start(t, join(root, "src/cli/mod.ts"), ["--allow-ffi", `--allow-read=${root}`]));
});

test("without it the reason is told, and how to give it", LIMIT, async (t) => {
  const { child } = start(t, join(root, "src/cli/mod.ts"), ["--allow-ffi"]);
  assert.equal(await child.waitEnd(), 1);
  assert.match(child.output, /cannot start worker threads: threads need --allow-read of the modules/);
});

test("from the net, as from a registry, threads need no leave to read", LIMIT, async (t) => {
  const server = createServer((request, response) => {
    const path = join(root, new URL(request.url ?? "", "http://localhost").pathname);
    const type = extname(path) === ".ts" ? "application/typescript" : "application/json";
    readFile(path).then(
      (text) => response.writeHead(200, { "content-type": type }).end(text),
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onEnd(t, () => void server.close());
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  // A registry's host is allowed by default; this one has to be named.
  await serves(start(t, `http://${host}/src/cli/mod.ts`, [
    "--allow-ffi",
    `--allow-import=${host}`,
    "--no-lock",
    `--config=${join(root, "deno.json")}`,
  ]));
});
