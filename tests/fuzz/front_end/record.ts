/**
 * Records what real front-ends say, as `recordings.ts` has it: `deno run --allow-all tests/fuzz/front_end/record.ts > …`, with
 * the peers of `scripts/install-peers`. A line for each message: its name, its flags, its payload in hexadecimal, and the
 * kinds of its descriptors.
 *
 * @module
 */

import { join } from "node:path";
import process from "node:process";
import { linkTarget } from "../../../ffi/fd.ts";
import { type Device, serve, type ServeOptions } from "../../../mod.ts";
import { BlkDevice, MemoryStorage } from "../../../src/devices/blk/mod.ts";
import { GeneratorNetwork, NetDevice } from "../../../src/devices/net/mod.ts";
import { onEnd, type Scope, tempDir } from "../../support/cleanup.ts";
import { Guest } from "../../support/guest.ts";
import { migrate } from "../../support/migration.ts";
import { qemuIo } from "../../support/qemu_io.ts";
import { restoreGuest } from "../../support/snapshot.ts";
import { Testpmd } from "../../support/testpmd.ts";

/** More of the same teaches nothing. */
const MOST = 100;

/** Serves a device, has something done by a front-end, and returns what that has said in each of its sessions. */
async function record(
  scope: Scope,
  device: Device,
  work: (socket: string) => Promise<unknown>,
  options: Partial<ServeOptions> = {},
): Promise<string[][]> {
  const sessions: string[][] = [];
  const socketPath = join(tempDir(scope), "socket");
  const server = await serve(device, {
    ...options,
    socketPath,
    onSession: ({ connection }) => {
      const lines: string[] = [];
      sessions.push(lines);
      connection.tap = (direction, { name, header, payload, fds }) => {
        if (direction === "out" || lines.length === MOST) return;
        const kinds = fds.list().map((fd) => kindOf(linkTarget(fd)));
        const hex = [...payload].map((byte) => byte.toString(16).padStart(2, "0")).join("");
        lines.push([name, header.flags, hex || "-", ...kinds].join(" "));
      };
    },
  });
  try {
    await work(socketPath);
  } finally {
    server.close();
    await server.finished;
    device.close();
  }
  return sessions;
}

function kindOf(target: string): string {
  if (target.includes("memfd:")) return "memory";
  if (target.startsWith("socket:")) return "channel";
  return target.includes("eventfd") ? "event" : "other";
}

const disk = (): Device => new BlkDevice({ storage: new MemoryStorage(16 << 20), shared: true });

async function main(scope: Scope): Promise<void> {
  const say = (name: string, sessions: string[][]): void =>
    sessions.filter((lines) => lines.length > 0).forEach((lines, i) => {
      console.log(
        `\n/** ${name}${sessions.length > 1 ? `, session ${i + 1}` : ""}. */\n\`\n${lines.join("\n")}\n\`,`,
      );
    });

  say(
    "qemu-io by libblkio",
    await record(scope, disk(), (socket) => qemuIo(socket, "write -P 1 0 64k", "flush")),
  );

  say(
    "A disk in QEMU, plugged in, used and unplugged",
    await record(scope, disk(), async (socket) => {
      const guest = await restoreGuest(scope);
      await guest.plug("vhost-user-blk-pci", socket);
      await guest.waitFor("[ -b /dev/vda ]");
      await guest.run("dd if=/dev/zero of=/dev/vda bs=4k count=16 oflag=direct");
      await guest.stop();
    }),
  );

  const behindIommu = [
    ...["-device", "intel-iommu,device-iotlb=on,intremap=off"],
    ...["-chardev", "socket,id=c0,path=SOCKET"],
    ...["-device", "vhost-user-blk-pci,chardev=c0,num-queues=1,iommu_platform=on,ats=on,disable-legacy=on"],
  ];
  say(
    "A disk in QEMU behind an IOMMU",
    await record(scope, disk(), async (socket) => {
      const guest = await Guest.start(scope, {
        modules: ["virtio_blk"],
        cmdline: "iommu=nopt iommu.strict=1 intel_iommu=on",
        devices: behindIommu.map((word) => word.replace("SOCKET", socket)),
      });
      await guest.run("dd if=/dev/zero of=/dev/vda bs=4k count=16 oflag=direct");
      await guest.stop();
    }, { iommu: true }),
  );

  for (const postcopy of [false, true]) {
    const what = `A disk in QEMU that moves by ${postcopy ? "postcopy" : "precopy"}`;
    const machine = (socket: string): string[] => [
      ...["-chardev", `socket,id=c0,path=${socket}`],
      ...["-device", "vhost-user-blk-pci,chardev=c0,num-queues=1"],
    ];
    const far: string[][] = [];
    say(
      `${what}, here`,
      await record(scope, disk(), async (socket) => {
        const from = await Guest.start(scope, { modules: ["virtio_blk"], devices: machine(socket) });
        far.push(
          ...await record(scope, disk(), async (other) => {
            const to = await Guest.start(scope, {
              modules: ["virtio_blk"],
              devices: machine(other),
              incoming: "defer",
            });
            await migrate(from, to, join(tempDir(scope), "m"), postcopy);
            await to.run("dd if=/dev/vda of=/dev/null bs=4k count=16 iflag=direct");
            await from.stop();
            await to.stop();
          }),
        );
      }),
    );
    say(`${what}, there`, far);
  }

  const card = new NetDevice({ network: new GeneratorNetwork(new Uint8Array(64)) });
  say(
    "DPDK",
    await record(scope, card, async (socket) => {
      const testpmd = await Testpmd.start(scope, {
        drivers: ["librte_net_virtio.so.25"],
        vdev: `net_virtio_user0,path=${socket},queues=2,queue_size=256,packed_vq=1,mrg_rxbuf=1,in_order=1`,
        queues: 2,
      });
      await testpmd.command("start");
      await testpmd.command("stop");
      await testpmd.command("quit").catch(() => {});
    }),
  );
}

const ends: (() => void | Promise<void>)[] = [];
const scope: Scope = { after: (fn) => void ends.push(fn) };
onEnd(scope, () => {});
try {
  await main(scope);
} finally {
  for (const end of ends) await end();
}
process.exit();
