import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { tempDir } from "../support/cleanup.ts";
import { imageOf, MIB, newImage, sha256 } from "../support/image.ts";
import { startDisk } from "../support/our_backend.ts";
import { which } from "../support/path.ts";
import { type PeerName, realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";
import { Random } from "../support/random.ts";
import { Uml } from "../support/uml.ts";

// Our disk in User-Mode Linux: a front-end that shares no code with QEMU or libblkio.

const needs: readonly PeerName[] = ["uml", "uml-guest"];

realTest("User-Mode Linux copies a disk to another", needs, {}, async (t) => {
  const contents = Random.of(t).bytes(16 * MIB);
  const source = await startDisk(t, { file: imageOf(t, contents), args: ["--read-only"] });
  const image = newImage(t, 32 * MIB);
  const target = await startDisk(t, { file: image, args: ["--id=target"] });
  const uml = await Uml.start(t, {
    modules: ["virtio_blk"],
    devices: [{ socket: source.socket, id: 2 }, { socket: target.socket, id: 2 }],
  });
  assert.equal(await uml.run("cat /sys/block/vd[ab]/size"), `${16 * MIB / 512}\n${32 * MIB / 512}`);
  assert.equal(await uml.run("cat /sys/block/vd[ab]/ro"), "1\n0");
  assert.equal(await uml.run("cat /sys/block/vdb/serial"), "target");
  await uml.run("dd if=/dev/vda of=/dev/vdb bs=1M conv=fsync 2>/dev/null");
  await uml.run(
    "dd if=/dev/vda of=/dev/vdb bs=1536 seek=10923 count=4000 oflag=direct conv=fsync 2>/dev/null",
  );
  const seen = await uml.run("echo 3 >/proc/sys/vm/drop_caches; sha256sum </dev/vdb | cut -c1-64");
  const expected = Buffer.alloc(32 * MIB);
  contents.copy(expected);
  contents.copy(expected, 10923 * 1536, 0, 4000 * 1536);
  assert.equal(seen, sha256(expected));
  assert.equal(sha256(image), sha256(expected));
  await assert.rejects(
    uml.run("dd if=/dev/vdb of=/dev/vda bs=4k count=1 conv=fsync"),
    /Operation not permitted/,
  );
  await uml.shutDown();
  await source.checkUnharmed();
  await target.checkUnharmed();
});

realTest("User-Mode Linux keeps a file system, over a power failure", needs, {}, async (t) => {
  const image = newImage(t, 32 * MIB);
  const disk = await startDisk(t, { file: image });
  const start = () =>
    Uml.start(t, { modules: ["virtio_blk", "ext4"], devices: [{ socket: disk.socket, id: 2 }] });
  const first = await start();
  const sums = await first.run(`
    mkfs.ext4 -q /dev/vda
    mount -t ext4 /dev/vda /mnt
    cp -r /modules /bin/busybox /mnt
    sync
    cd /mnt
    sha256sum busybox modules/*`);
  assert.ok(sums.split("\n").length > 3, sums);
  await first.stop();
  await disk.checkUnharmed();

  const second = await start();
  const seen = await second.run(`
    mount -t ext4 /dev/vda /mnt
    cd /mnt
    sha256sum busybox modules/*`);
  assert.equal(seen, sums);
  await second.run("umount /mnt && e2fsck -fn /dev/vda");
  await second.shutDown();
  await disk.checkUnharmed();
  await run(which("e2fsck") ?? "e2fsck", ["-fn", image]);
  const copy = tempDir(t);
  await run(which("debugfs") ?? "debugfs", ["-R", `rdump / ${copy}`, image]);
  for (const line of sums.split("\n")) {
    const [sum, name] = line.split("  ");
    assert.equal(sha256(readFileSync(join(copy, name))), sum, name);
  }
});
