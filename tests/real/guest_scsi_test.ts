import assert from "node:assert/strict";
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MemoryStorage, ScsiDevice } from "../../src/devices/scsi/mod.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { allocated, imageOf, MIB, newImage, sha256 } from "../support/image.ts";
import type { Guest } from "../support/guest.ts";
import { installProgram } from "../support/guest_program.ts";
import { InProcess } from "../support/in_process.ts";
import { startBackend } from "../support/our_backend.ts";
import { which } from "../support/path.ts";
import { realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";
import { Random } from "../support/random.ts";
import { seaBiosStarts } from "../support/seabios.ts";
import { restoreGuest } from "../support/snapshot.ts";

// Our SCSI host in Linux guests. QEMU says that there could be 256 targets, and Linux asks each for its name.

/** How long that may take, ms. */
const SCAN = 30_000;

/** Waits for units, and links `/tmp/0` and so on to them: Linux looks at several at once, and names them as it comes. */
async function waitForUnits(guest: Guest, ...luns: number[]): Promise<void> {
  for (const lun of luns) {
    const folder = `/sys/class/scsi_device/0:0:0:${lun}/device/block`;
    await guest.waitFor(`[ -e ${folder}/sd? ] && [ -b /dev/$(ls ${folder}) ]`, SCAN);
    await guest.run(`ln -sf /dev/$(ls ${folder}) /tmp/${lun}; ln -sfn ${folder}/sd? /tmp/sys${lun}`);
  }
}

/** Shell: puts `mib` MiB of random bytes into /tmp/data and says their checksum. */
const makeData = (mib: number): string =>
  `dd if=/dev/urandom of=/tmp/data bs=1M count=${mib} 2>/dev/null; sha256sum </tmp/data | cut -c1-64`;

for (const emulator of ["qemu", "qemu11"] as const) {
  realTest(
    `${emulator}: a tree of files goes from unit 1 to unit 0 and is the same on the host`,
    [
      emulator,
      "guest",
    ],
    {},
    async (t) => {
      const random = Random.of(t);
      const tree = join(tempDir(t), "tree");
      const files = new Map<string, Uint8Array>();
      for (let i = 0; i < 200; i++) {
        const folder = `d${i % 20}`;
        mkdirSync(join(tree, folder), { recursive: true });
        const contents = random.bytes(random.pick([0, 1, 511, 4096, 20_000, random.int(0, 100_000)]));
        files.set(`${folder}/f${i}`, contents);
        writeFileSync(join(tree, folder, `f${i}`), contents);
      }
      const archive = newImage(t, 0);
      await run("tar", ["-cf", archive, "-C", tree, "."]);
      const image = newImage(t, 64 * MIB);
      const before = sha256(archive);
      const host = await startBackend(t, "scsi", [
        `--lun=file:${image},id=first`,
        `--lun=file:${archive},read-only`,
      ]);
      const guest = await restoreGuest(t, { emulator, smp: 2 });
      await guest.plug("vhost-user-scsi-pci", host.socket);
      await waitForUnits(guest, 0, 1);
      assert.equal(await guest.run("cat /tmp/sys0/device/vpd_pg80 | tail -c 5"), "first");
      assert.equal(await guest.run("cat /tmp/sys0/ro /tmp/sys1/ro"), "0\n1");
      await guest.run("mkfs.ext4 -q /tmp/0; mount -t ext4 /tmp/0 /mnt");
      await guest.run("tar xf /tmp/1 -C /mnt && sync", 60_000);
      await guest.run("umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount -t ext4 /tmp/0 /mnt");
      const sums = await guest.run("cd /mnt && sha256sum d*/f*", 60_000);
      assert.deepEqual(
        sums.split("\n").sort(),
        [...files].map(([name, contents]) => `${sha256(contents)}  ${name}`).sort(),
      );
      await guest.run("umount /mnt");
      await assert.rejects(guest.run("dd if=/dev/zero of=/tmp/1 bs=4k count=1 conv=fsync"), /status/);
      assert.equal(await guest.run("dmesg | grep -iE 'sd.*(error|fail|sense key)' || true"), "");
      await guest.unplug();
      await guest.stop();
      await host.checkUnharmed();
      await run(which("e2fsck") ?? "e2fsck", ["-fn", image]);
      const copy = tempDir(t);
      await run(which("debugfs") ?? "debugfs", ["-R", `rdump / ${copy}`, image]);
      for (const [name, contents] of files) assert.ok(readFileSync(join(copy, name)).equals(contents), name);
      assert.equal(sha256(archive), before);
    },
  );
}

realTest(
  "discarded blocks give their room back, and caches are flushed",
  ["qemu", "guest"],
  {},
  async (t) => {
    const image = imageOf(t, new Uint8Array(32 * MIB).fill(0xff));
    const host = await startBackend(t, "scsi", [`--lun=file:${image}`]);
    const guest = await restoreGuest(t);
    await guest.plug("vhost-user-scsi-pci", host.socket);
    await waitForUnits(guest, 0);
    const room = () => allocated(image);
    const slack = 128 * 1024;
    const full = room();
    await guest.run("/bin/blkdiscard -o 4M -l 4M /tmp/0");
    assert.ok(Math.abs(full - room() - 4 * MIB) <= slack, `blkdiscard: ${full} to ${room()}`);
    await guest.run("/bin/blkdiscard -z -o 12M -l 2M /tmp/0");
    await guest.run("/bin/fallocate -p -o 20M -l 4M /tmp/0");
    await guest.run("cat /sys/class/scsi_disk/*/cache_type | grep -x 'write back'");
    const before = Number(await guest.run("awk '{ print $16 }' /tmp/sys0/stat"));
    const written = await guest.run(
      `${makeData(2)}; dd if=/tmp/data of=/tmp/0 bs=64k conv=fsync 2>/dev/null`,
    );
    const flushed = () => guest.run("awk '{ print $16 }' /tmp/sys0/stat").then(Number);
    assert.equal(await flushed(), before + 1);
    await guest.run("echo 'write through' >/sys/class/scsi_disk/0:0:0:0/cache_type");
    assert.equal(await guest.run("cat /sys/class/scsi_disk/0:0:0:0/cache_type"), "write through");
    await guest.run("dd if=/tmp/data of=/tmp/0 bs=64k seek=64 conv=fsync,notrunc 2>/dev/null");
    await guest.stop();
    await host.checkUnharmed();
    const bytes = readFileSync(image);
    const part = (from: number, to: number) => sha256(bytes.subarray(from * MIB, to * MIB));
    assert.equal(part(0, 2), written);
    assert.equal(part(12, 14), sha256(new Uint8Array(2 * MIB)));
    assert.equal(part(20, 24), sha256(new Uint8Array(4 * MIB)));
    assert.equal(part(14, 20), sha256(new Uint8Array(6 * MIB).fill(0xff)));
  },
);

realTest("a unit grows under its guest, which boots again and finds all", ["qemu", "guest"], {
  timeout: 120_000,
}, async (t) => {
  const image = newImage(t, 16 * MIB);
  const host = await startBackend(t, "scsi", [`--lun=file:${image}`, "--lun=mem:8M,block-size=4096"]);
  const guest = await restoreGuest(t);
  await guest.plug("vhost-user-scsi-pci", host.socket);
  await waitForUnits(guest, 0, 1);
  assert.equal(await guest.run("cat /tmp/sys1/queue/logical_block_size"), "4096");
  truncateSync(image, 24 * MIB);
  host.child.kill("SIGHUP");
  await guest.waitFor(`[ $(cat /tmp/sys0/size) = ${24 * MIB / 512} ]`);
  const written = await guest.run(
    `${makeData(4)}; dd if=/tmp/data of=/tmp/0 bs=1M seek=20 conv=fsync 2>/dev/null
     dd if=/tmp/data of=/tmp/1 bs=1M conv=fsync 2>/dev/null`,
  );
  await guest.reboot("command");
  await waitForUnits(guest, 0, 1);
  const seen = await guest.run(
    `dd if=/tmp/0 bs=1M skip=20 2>/dev/null | sha256sum | cut -c1-64
     dd if=/tmp/1 bs=1M count=4 2>/dev/null | sha256sum | cut -c1-64`,
  );
  assert.deepEqual(seen.split("\n"), [written, written]);
  await guest.stop();
  await host.checkUnharmed();
  assert.equal(sha256(readFileSync(image).subarray(20 * MIB)), written);
});

realTest(
  "units are plugged in and taken away; a reset ends a command that hangs",
  ["qemu11", "guest", "cc"],
  {
    timeout: 90_000,
  },
  async (t) => {
    const held: (() => void)[] = [];
    const slow = new MemoryStorage(8 * MIB);
    let hangs = false;
    const host = new ScsiDevice({
      units: [{ storage: new MemoryStorage(16 * MIB) }, {
        storage: {
          size: slow.size,
          readOnly: false,
          read: (data, position) => {
            slow.read(data, position);
            if (hangs) return new Promise((resolve) => held.push(resolve));
          },
          write: (data, position) => slow.write(data, position),
          flush: () => {},
          close: () => slow.close(),
        },
      }],
    });
    onEnd(t, () => host.close());
    const served = await InProcess.serve(t, host);
    const guest = await restoreGuest(t, { emulator: "qemu11" });
    await guest.plug("vhost-user-scsi-pci", served.socket);
    await waitForUnits(guest, 0, 1);
    host.attach(7, { storage: new MemoryStorage(4 * MIB), id: "seven" });
    await waitForUnits(guest, 7);
    assert.equal(await guest.run("cat /tmp/sys7/device/vpd_pg80 | tail -c 5"), "seven");
    const written = await guest.run(
      `${makeData(4)}; dd if=/tmp/data of=/tmp/7 bs=1M conv=fsync 2>/dev/null`,
    );
    assert.equal(
      await guest.run("dd if=/tmp/7 bs=64k iflag=direct 2>/dev/null | sha256sum | cut -c1-64"),
      written,
    );
    await host.detach(7);
    await guest.waitFor("[ ! -e /sys/class/scsi_device/0:0:0:7 ]");

    // A reset waits for the command that hangs, which ends as reset; the guest gives it once more.
    const reset = await installProgram(t, guest, "scsi_reset");
    hangs = true;
    await guest.run(
      "(dd if=/tmp/1 bs=4k count=1 iflag=direct of=/tmp/read 2>/dev/null; echo $? >/tmp/status) &",
    );
    await served.until("a command hangs", () => held.length === 1);
    hangs = false;
    await guest.run(`(${reset} /tmp/1; echo $? >/tmp/reset) &`);
    await guest.run("sleep 0.3; [ ! -e /tmp/reset ] && [ ! -e /tmp/status ]");
    held[0]();
    await guest.waitFor("[ -e /tmp/reset -a -e /tmp/status ]");
    assert.equal(await guest.run("cat /tmp/reset /tmp/status"), "0\n0");
    assert.equal(await guest.run("sha256sum </tmp/read | cut -c1-64"), sha256(new Uint8Array(4096)));
    assert.match(await guest.run("dmesg | grep 0:0:0:1: | tail -1"), /device reset occurred/);
    await guest.stop();
    await served.checkUnharmed();
  },
);

realTest("the back-end is killed while the guest writes; a new one takes over", ["qemu", "guest"], {
  timeout: 90_000,
}, async (t) => {
  const random = Random.of(t);
  const image = newImage(t, 32 * MIB);
  const start = [`--lun=file:${image}`];
  let host = await startBackend(t, "scsi", start);
  const guest = await restoreGuest(t);
  await guest.plug("vhost-user-scsi-pci", host.socket, { reconnectMs: 50 });
  await waitForUnits(guest, 0);
  await guest.run(`
    dd if=/dev/urandom of=/tmp/a bs=1M count=1 2>/dev/null
    (while [ ! -e /tmp/stop ]; do
       dd if=/tmp/a of=/tmp/0 bs=4k oflag=direct 2>/dev/null || echo "not written" >>/tmp/bad
       dd if=/tmp/0 bs=4k count=256 iflag=direct 2>/dev/null | cmp - /tmp/a >>/tmp/bad 2>&1
       echo >>/tmp/rounds
     done; touch /tmp/over) &`);
  for (let i = 0; i < 4; i++) {
    await sleep(random.int(100, 400));
    host.child.kill("SIGKILL");
    await host.child.ended;
    host = await startBackend(t, "scsi", start, { replaces: host });
  }
  await guest.run("touch /tmp/stop");
  await guest.waitFor("[ -e /tmp/over ]", 30_000);
  assert.equal(await guest.run("cat /tmp/bad; dmesg | grep 'I/O error' || true"), "");
  const sum = await guest.run("sha256sum </tmp/a | cut -c1-64");
  assert.equal(sha256(readFileSync(image).subarray(0, MIB)), sum);
  await guest.stop();
  await host.checkUnharmed();
});

realTest("SeaBIOS starts what is on a unit", ["qemu"], {}, async (t) => {
  await seaBiosStarts(t, "vhost-user-scsi-pci", (image) => startBackend(t, "scsi", [`--lun=file:${image}`]));
});
