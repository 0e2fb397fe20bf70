import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { type Scope, tempDir } from "../support/cleanup.ts";
import { peerPath } from "../support/peers.ts";
import { Child } from "../support/process.ts";

// Back-ends of others, for our front-end.

/** A back-end that listens. */
export interface OtherBackend {
  readonly child: Child;
  readonly socket: string;
}

async function start(
  scope: Scope,
  socket: string,
  command: string,
  args: readonly string[],
  options: Parameters<typeof Child.start>[3] = {},
): Promise<OtherBackend> {
  const child = Child.start(scope, command, args, options);
  await child.waitSocket(socket, 30_000);
  return { child, socket };
}

/** A disk in an image file; `qmp` is the path of its monitor. */
export async function startQsd(
  scope: Scope,
  image: string,
  folder: string = tempDir(scope),
): Promise<OtherBackend & { readonly qmp: string }> {
  const [socket, qmp] = [join(folder, "blk.sock"), join(folder, "qmp.sock")];
  if (existsSync(socket)) throw new Error(`remove ${socket} first`);
  const started = await start(scope, socket, peerPath("qemu-storage-daemon"), [
    ...["--chardev", `socket,path=${qmp},server=on,wait=off,id=q`, "--monitor", "chardev=q"],
    ...["--blockdev", `driver=file,filename=${image},node-name=file,discard=unmap`],
    ...["--blockdev", "driver=raw,file=file,node-name=disk,discard=unmap"],
    "--export",
    `type=vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path=${socket},writable=on,num-queues=2`,
  ]);
  return { ...started, qmp };
}

/** A file system of a folder. */
export function startVirtiofsd(scope: Scope, folder: string): Promise<OtherBackend> {
  const socket = join(tempDir(scope), "fs.sock");
  return start(scope, socket, peerPath("virtiofsd"), [
    `--socket-path=${socket}`,
    `--shared-dir=${folder}`,
    "--sandbox=none",
    "--log-level=error",
  ]);
}

/** A network with the guest at 10.0.2.15 and a gateway at 10.0.2.2. */
export function startPasst(scope: Scope): Promise<OtherBackend> {
  const socket = join(tempDir(scope), "net.sock");
  const user = process.getuid?.() === 0 ? ["--runas", "0:0"] : [];
  return start(scope, socket, peerPath("passt"), [
    ...["--vhost-user", "-f", "-q", "-s", socket],
    ...["-a", "10.0.2.15", "-n", "24", "-g", "10.0.2.2", ...user],
  ]);
}

/** A network that sends each frame back. */
export function startTestpmd(scope: Scope, folder: string = tempDir(scope)): Promise<OtherBackend> {
  const socket = join(folder, "net.sock");
  const root = dirname(dirname(peerPath("testpmd")));
  const libraries = join(root, "lib/x86_64-linux-gnu");
  return start(scope, socket, peerPath("testpmd"), [
    ...["-d", join(libraries, "dpdk/pmds-25.0"), "--lcores", "(0,1)@(0-1)", "--no-huge", "-m", "256"],
    ...["--no-pci", "--file-prefix", `client${process.pid}-${Math.random().toString(36).slice(2)}`],
    ...["--vdev", `net_vhost0,iface=${socket},queues=1`, "--", "--no-mlockall"],
    ...["--total-num-mbufs=4096", "--forward-mode=io", "--rxq=1", "--txq=1", "--auto-start"],
    // Without a terminal it ends when its input does; with statistics now and then it does not look for input.
    "--stats-period=1000",
  ], { env: { LD_LIBRARY_PATH: libraries } });
}

/** Sockets of a guest with CID 3; the host's are `folder/u_PORT`. */
export async function startVsock(scope: Scope): Promise<OtherBackend & { readonly folder: string }> {
  const folder = tempDir(scope);
  const socket = join(folder, "vsock.sock");
  const started = await start(scope, socket, peerPath("vhost-device-vsock"), [
    "--vm",
    `guest-cid=3,socket=${socket},uds-path=${join(folder, "u")}`,
  ]);
  return { ...started, folder };
}
