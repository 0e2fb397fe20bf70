import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type Scope, tempDir } from "../support/cleanup.ts";
import { root, startDeno } from "../support/our_backend.ts";
import { peerPath } from "../support/peers.ts";
import type { Child } from "../support/process.ts";
import { run } from "../support/process.ts";
import { blkioDisk } from "../support/qemu_io.ts";

/** A port of this machine that nobody uses at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** An example that serves a disk. */
export interface ServedExample {
  readonly child: Child;
  readonly socket: string;
}

/** Starts an example with just these permissions, besides the one that all need; returns when it listens. */
export async function startDiskExample(
  scope: Scope,
  name: string,
  permissions: readonly string[],
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<ServedExample> {
  const socket = join(tempDir(scope), "disk.sock");
  const script = join(root, `examples/${name}.ts`);
  const child = startDeno(scope, [...permissions, script, `--socket-path=${socket}`, ...args], { env });
  await child.waitLine(new RegExp(`^${name}: .* on `), 30_000);
  return { child, socket };
}

/** Runs an example that is expected to end by itself. */
export async function runExample(
  scope: Scope,
  name: string,
  permissions: readonly string[],
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<{ code: number; output: string }> {
  const child = startDeno(scope, [...permissions, join(root, `examples/${name}.ts`), ...args], { env });
  const code = await child.waitEnd(30_000);
  return { code, output: child.output };
}

/** Copies a whole disk to a file by qemu-img, and returns the path. */
export async function copyOf(scope: Scope, socket: string): Promise<string> {
  const copy = join(tempDir(scope), "copy.img");
  await run(peerPath("qemu-img"), ["convert", "-O", "raw", "--image-opts", blkioDisk(socket), copy], {
    timeout: 60_000,
  });
  return copy;
}
