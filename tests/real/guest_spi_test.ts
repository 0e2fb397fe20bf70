import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { SimulatedSpiBus, SpiDevice, SpiFlash } from "../../src/devices/spi/mod.ts";
import { bytesOf, sameBytes } from "../session/scene.ts";
import { tempDir } from "../support/cleanup.ts";
import { InProcess } from "../support/in_process.ts";
import { OurBackend, startCommand } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

// Linux's drivers, of the controller (spi-virtio) and of a flash (spi-nor, mtd), which the kernel has at chip select 0.

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

realTest("a guest reads, erases and writes a flash", ["qemu11", "guest"], {}, async (t) => {
  const content = bytesOf(45, 1 << 17);
  const flash = new SpiFlash({ data: content.slice() });
  const device = await InProcess.serve(t, new SpiDevice({ bus: new SimulatedSpiBus([flash]) }));
  const guest = await restoreGuest(t, { emulator: "qemu11" });
  await guest.plug("vhost-user-spi-pci", device.socket);
  await guest.waitFor("[ -c /dev/mtd0 ]");
  assert.equal(await guest.run("cat /sys/class/mtd/mtd0/type /sys/class/mtd/mtd0/size"), "nor\n131072");
  assert.equal(await guest.run("sha256sum </dev/mtd0"), `${sha256(content)}  -`);
  await guest.run("hardware erase /dev/mtd0");
  assert.ok(flash.data.every((byte) => byte === 0xff));
  await guest.run(
    "(echo begin; dd if=/dev/zero bs=1000 count=3; echo end) 2>/dev/null >/tmp/new; dd if=/tmp/new of=/dev/mtd0 2>/dev/null",
  );
  const text = new TextDecoder().decode(flash.data.subarray(0, 3010));
  assert.equal(text, `begin\n${"\0".repeat(3000)}end\n`);
  assert.equal(flash.data[3010], 0xff);
  await guest.unplug();
  await guest.stop();
  await device.checkUnharmed();
});

realTest("the command line serves a flash that is a file", ["qemu11", "guest"], {}, async (t) => {
  const file = join(tempDir(t), "flash.bin");
  const socket = join(tempDir(t), "spi.sock");
  const content = bytesOf(46, 1 << 16);
  writeFileSync(file, content);
  const child = startCommand(t, ["spi", `--socket-path=${socket}`, `--device=flash=${file}`]);
  await child.waitLine(/^vhost-user spi: .* on /);
  const guest = await restoreGuest(t, { emulator: "qemu11" });
  const backend = new OurBackend(t, child, socket);
  await guest.plug("vhost-user-spi-pci", socket);
  await guest.waitFor("[ -c /dev/mtd0 ]");
  assert.equal(await guest.run("sha256sum </dev/mtd0"), `${sha256(content)}  -`);
  await guest.run("hardware erase /dev/mtd0; echo kept | dd of=/dev/mtd0 2>/dev/null");
  sameBytes(readFileSync(file).subarray(0, 6), Uint8Array.of(...new TextEncoder().encode("kept\n"), 0xff));
  await guest.unplug();
  await guest.stop();
  await backend.checkUnharmed();
});
