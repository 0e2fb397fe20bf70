import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BlkDevice, MemoryStorage, type Storage } from "../../src/devices/blk/mod.ts";
import { LogBook } from "../session/scene.ts";
import { type Device, serve } from "../../mod.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { Child } from "../support/process.ts";

/**
 * A disk whose configuration space is big-endian from the start. QEMU asks for it when it connects, long before it knows of the
 * driver, and asks again when it is told to; SLOF has read the size of a block by then.
 */
function bigEndianDisk(storage: Storage): Device {
  const disk = new BlkDevice({ storage });
  const { connect } = disk.definition;
  return Object.assign(disk, {
    connect: (link: Parameters<Device["connect"]>[0]) => {
      const behaviour = connect?.(link);
      assert.ok(behaviour?.config);
      const { read } = behaviour.config;
      return Object.assign(behaviour, { config: { read: () => read("big") } });
    },
  });
}

realTest("SLOF, a big-endian firmware with a legacy driver, looks for what to boot", ["qemu-ppc"], {
  timeout: 120_000,
}, async (t) => {
  const memory = new MemoryStorage(16 << 20);
  const reads: string[] = [];
  const storage: Storage = {
    size: memory.size,
    readOnly: true,
    read: (data, position) => {
      reads.push(`${data.byteLength} at ${position}`);
      memory.read(data, position);
    },
    write: () => {},
    flush: () => {},
    close: () => memory.close(),
  };
  const dir = tempDir(t);
  const log = new LogBook();
  const messages: string[] = [];
  const server = await serve(bigEndianDisk(storage), {
    socketPath: join(dir, "blk.sock"),
    log: log.write,
    onSession: ({ connection }) => connection.tap = (_, { name }) => messages.push(name),
  });
  onEnd(t, () => server.close());
  const consoleLog = join(dir, "console");
  const qemu = Child.start(t, peerPath("qemu-ppc"), [
    ...["-no-user-config", "-nodefaults", "-display", "none", "-vga", "none", "-accel", "tcg", "-m", "256M"],
    ...["-M", "pseries,memory-backend=m0,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"],
    ...["-object", "memory-backend-memfd,id=m0,size=256M,share=on"],
    ...["-chardev", `file,id=console,path=${consoleLog}`, "-device", "spapr-vty,chardev=console"],
    ...["-chardev", `socket,id=c0,path=${join(dir, "blk.sock")}`],
    "-device",
    "vhost-user-blk-pci,chardev=c0,num-queues=1,bootindex=0,disable-modern=on,disable-legacy=off",
  ]);
  const said = (): string => existsSync(consoleLog) ? readFileSync(consoleLog, "latin1") : "";
  while (!said().includes("Not a bootable device")) {
    assert.equal(qemu.code, undefined, qemu.output);
    await sleep(50);
  }
  assert.ok(messages.includes("SET_VRING_ENDIAN"), messages.join(" "));
  // A volume descriptor of a CD, and a table of partitions.
  assert.deepEqual([...new Set(reads)], ["2048 at 32768", "512 at 0"]);
  // It complains of what fails. (The second time that it opens a device it does not start it.)
  assert.doesNotMatch(said().split("Not a bootable device")[0], /virtioblk_transfer/);
  assert.deepEqual(log.problems, []);
});
