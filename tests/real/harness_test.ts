import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Guest } from "../support/guest.ts";
import { MIB, newImage, sha256 } from "../support/image.ts";
import { realTest } from "../support/peers.ts";
import { qemuIo } from "../support/qemu_io.ts";
import { restoreGuest } from "../support/snapshot.ts";
import { startStorageDaemon } from "../support/storage_daemon.ts";
import { Uml } from "../support/uml.ts";

// The harness in front of a back-end known to be good: when these fail, the fault is not the toolkit's.

/** Writes random bytes to the disk, reads them back past the cache, and returns both checksums. */
const writeAndRead = `
  dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
  dd if=/tmp/data of=/dev/vda bs=1M oflag=direct conv=fsync 2>/dev/null
  sha256sum </tmp/data
  dd if=/dev/vda bs=1M count=4 iflag=direct 2>/dev/null | sha256sum`;

/** Makes a file system, copies a tree to it, and compares what is there after mounting it again. */
const copyTree = `
  set -e
  mkfs.ext4 -q /dev/vda
  mount -t ext4 /dev/vda /mnt
  cp -r /modules /bin/busybox /mnt
  umount /mnt
  mount -t ext4 /dev/vda /mnt
  cd /modules
  sha256sum * >/tmp/sums
  cd /mnt/modules
  sha256sum -c /tmp/sums | grep -vc OK || true
  cd /
  umount /mnt
  e2fsck -fn /dev/vda >/dev/null 2>&1`;

async function checkDisk(guest: Guest | Uml, image: string): Promise<void> {
  const [written, read] = (await guest.run(writeAndRead)).split("\n").map((line) => line.split(" ")[0]);
  assert.equal(read, written);
  assert.equal(sha256(readFileSync(image).subarray(0, 4 * MIB)), written);
}

realTest(
  "qemu-io over libblkio writes and reads through qemu-storage-daemon",
  ["qemu-io", "libblkio", "qemu-storage-daemon"],
  {},
  async (t) => {
    const image = newImage(t, 64 * MIB);
    const socket = await startStorageDaemon(t, image);
    await qemuIo(socket, "write -P 0xab 0 64k", "read -P 0xab 0 64k", "read -P 0 64k 64k", "flush");
    assert.equal(sha256(readFileSync(image).subarray(0, 65536)), sha256(new Uint8Array(65536).fill(0xab)));
  },
);

realTest(
  "a Linux guest boots with a disk of qemu-storage-daemon",
  ["qemu", "guest", "qemu-storage-daemon"],
  {},
  async (t) => {
    const image = newImage(t, 64 * MIB);
    const socket = await startStorageDaemon(t, image, 2);
    const guest = await Guest.start(t, {
      smp: 2,
      modules: ["virtio_blk", "ext4"],
      devices: [
        ...["-chardev", `socket,id=c0,path=${socket},reconnect-ms=200`],
        ...["-device", "vhost-user-blk-pci,id=vb0,chardev=c0,num-queues=2"],
      ],
    });
    await checkDisk(guest, image);
    assert.equal(await guest.run(copyTree), "0");
    await assert.rejects(guest.run("cd /nowhere; exit 3"), /status 3 of: cd \/nowhere/);
  },
);

realTest(
  "a guest from a snapshot takes a hot-plugged disk and lets it go",
  ["qemu", "guest", "qemu-storage-daemon"],
  {},
  async (t) => {
    const image = newImage(t, 64 * MIB);
    const socket = await startStorageDaemon(t, image);
    const guest = await restoreGuest(t);
    await guest.plug("vhost-user-blk-pci", socket);
    await guest.waitFor("[ -b /dev/vda ]");
    await checkDisk(guest, image);
    await guest.unplug();
    await guest.waitFor("[ ! -b /dev/vda ]");
  },
);

realTest(
  "User-Mode Linux uses a disk of qemu-storage-daemon",
  ["uml", "uml-guest", "qemu-storage-daemon"],
  {},
  async (t) => {
    const image = newImage(t, 64 * MIB);
    const socket = await startStorageDaemon(t, image);
    const uml = await Uml.start(t, { modules: ["virtio_blk"], devices: [{ socket, id: 2 }] });
    await checkDisk(uml, image);
    await uml.shutDown();
  },
);
