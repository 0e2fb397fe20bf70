import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import type { DeviceKind } from "../../src/tools/check/mod.ts";
import { type Scope, tempDir } from "../support/cleanup.ts";
import { type PeerName, peerPath } from "../support/peers.ts";
import { run } from "../support/process.ts";

// Back-ends of others: how to start them, and which version they are.

/** Processors that this process may use, as the kernel lists them. */
function processors(): string {
  const status = readFileSync("/proc/self/status", "utf8");
  return /Cpus_allowed_list:\s*(\S+)/.exec(status)?.[1] ?? "0";
}

/** A back-end and how to start it. */
export interface CheckedPeer {
  name: PeerName;
  device: DeviceKind;
  /** For the shell, with `{socket}` for the socket's path. */
  command(scope: Scope): string;
  version(): Promise<string>;
}

const ended = (text: string): string => text.trim().split("\n")[0];

/** The back-ends that are checked. */
export const checkedPeers: readonly CheckedPeer[] = [
  {
    name: "qemu-storage-daemon",
    device: "blk",
    command: (scope) => {
      const image = join(tempDir(scope), "disk.img");
      writeFileSync(image, "");
      truncateSync(image, 64 * 2 ** 20);
      return `exec ${peerPath("qemu-storage-daemon")} ` +
        // Slow enough that requests can be met under way.
        "--object throttle-group,id=slow,x-iops-total=400 " +
        `--blockdev driver=file,filename=${image},node-name=file,discard=unmap ` +
        "--blockdev driver=throttle,throttle-group=slow,file=file,node-name=disk,discard=unmap " +
        "--export type=vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path={socket},writable=on,num-queues=4";
    },
    version: async () => {
      const { stdout } = await run(peerPath("qemu-storage-daemon"), ["--version"]);
      return /version ([0-9.]+)/.exec(stdout)?.[1] ?? ended(stdout);
    },
  },
  {
    name: "virtiofsd",
    device: "fs",
    command: (scope) =>
      `exec ${peerPath("virtiofsd")} --socket-path={socket} --shared-dir=${tempDir(scope)} ` +
      "--sandbox=none --log-level=off",
    version: async () => ended((await run(peerPath("virtiofsd"), ["--version"])).stdout).split(" ")[1],
  },
  {
    name: "passt",
    device: "net",
    command: () => {
      const user = process.getuid?.() === 0 ? " --runas 0:0" : "";
      return `exec ${peerPath("passt")} --vhost-user -f -q -s {socket} -a 10.0.2.15 -n 24 -g 10.0.2.2${user}`;
    },
    // What it writes with --version is lost before it reaches us.
    version: async () => (await run("dpkg-query", ["-W", "-f", "${Version}", "passt"])).stdout,
  },
  {
    name: "testpmd",
    device: "net",
    command: () => {
      const root = dirname(dirname(peerPath("testpmd")));
      const libraries = join(root, "lib/x86_64-linux-gnu");
      // It ends when its input does.
      return `sleep 1000 | LD_LIBRARY_PATH=${libraries} exec ${peerPath("testpmd")} ` +
        `-d ${
          join(libraries, "dpdk/pmds-25.0")
        } --lcores '(0,1)@(${processors()})' --no-huge -m 256 --no-pci ` +
        "--file-prefix check$$ --vdev net_vhost0,iface={socket},queues=1 -- --no-mlockall " +
        "--total-num-mbufs=4096 --forward-mode=rxonly --rxq=1 --txq=1 --auto-start";
    },
    version: () => {
      const file = join(dirname(dirname(dirname(peerPath("testpmd")))), "version");
      return Promise.resolve(readFileSync(file, "utf8").trim().replace(/[-+].*/, ""));
    },
  },
  {
    name: "vhost-device-vsock",
    device: "vsock",
    command: (scope) =>
      `exec ${peerPath("vhost-device-vsock")} --vm guest-cid=3,socket={socket},uds-path=${
        join(tempDir(scope), "u")
      }`,
    version: async () =>
      ended((await run(peerPath("vhost-device-vsock"), ["--version"])).stdout).split(" ")[1],
  },
];
