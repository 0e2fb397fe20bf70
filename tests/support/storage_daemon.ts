import { join } from "node:path";
import { type Scope, tempDir } from "./cleanup.ts";
import { peerPath } from "./peers.ts";
import { Child } from "./process.ts";

/** Starts the reference back-end for disks on the image `file` and returns the socket it listens on. */
export async function startStorageDaemon(scope: Scope, file: string, queues: number = 1): Promise<string> {
  const socket = join(tempDir(scope), "blk.sock");
  const daemon = Child.start(scope, peerPath("qemu-storage-daemon"), [
    ...["--blockdev", `driver=file,filename=${file},node-name=file,discard=unmap`],
    ...["--blockdev", "driver=raw,file=file,node-name=disk,discard=unmap"],
    "--export",
    `type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=${socket},writable=on,num-queues=${queues}`,
  ]);
  await daemon.waitSocket(socket);
  return socket;
}
