import assert from "node:assert/strict";
import { peerPath } from "./peers.ts";
import { run } from "./process.ts";

/** How QEMU's tools name a vhost-user disk that libblkio drives. */
export function blkioDisk(socket: string): string {
  return `driver=virtio-blk-vhost-user,path=${socket},cache.direct=on`;
}

/** The arguments of qemu-io for a disk and the commands to do. */
export function qemuIoArguments(socket: string, commands: readonly string[]): string[] {
  return ["--image-opts", blkioDisk(socket), ...commands.flatMap((command) => ["-c", command])];
}

/** Has qemu-io do commands, in order, and returns what it writes. Fails when one of them does. */
export async function qemuIo(socket: string, ...commands: string[]): Promise<string> {
  const { stdout, stderr } = await run(peerPath("qemu-io"), qemuIoArguments(socket, commands));
  // The exit status knows nothing of asynchronous commands.
  assert.doesNotMatch(stdout + stderr, /fail|error|invalid|verification/i);
  return stdout;
}
