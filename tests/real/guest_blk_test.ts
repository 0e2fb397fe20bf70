import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import test, { type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { Guest, type PlugOptions } from "../support/guest.ts";
import { allocated, imageOf, MIB, newImage, sha256 } from "../support/image.ts";
import { type OurBackend, startDisk } from "../support/our_backend.ts";
import { which } from "../support/path.ts";
import { type PeerName, realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";
import { Random } from "../support/random.ts";
import { seaBiosStarts } from "../support/seabios.ts";
import { restoreGuest, type RestoreOptions } from "../support/snapshot.ts";

// Our disk in Linux guests of QEMU. What the guest has written is compared with the image on the host.

const needs: readonly PeerName[] = ["qemu", "guest"];

/** Plugs a disk into a guest, as vda if it is the first, and waits for it. */
async function plug(guest: Guest, disk: OurBackend, name = "vda", options: PlugOptions = {}): Promise<void> {
  await guest.plug("vhost-user-blk-pci", disk.socket, options);
  await guest.waitFor(`[ -b /dev/${name} ]`);
}

/** A guest with a disk. */
async function guestWith(
  t: TestContext,
  disk: OurBackend,
  options: PlugOptions & RestoreOptions = {},
): Promise<Guest> {
  const guest = await restoreGuest(t);
  await plug(guest, disk, "vda", options);
  return guest;
}

/** Ends the guest; its disk must have come to no harm. */
async function finish(guest: Guest, ...disks: OurBackend[]): Promise<void> {
  await guest.stop();
  for (const disk of disks) await disk.checkUnharmed();
}

/** Checks an image on the host as a file system that was unmounted. */
async function checkFileSystem(image: string): Promise<void> {
  await run(which("e2fsck") ?? "e2fsck", ["-fn", image]);
}

/** Shell: puts `mib` MiB of random bytes into /tmp/data and says their checksum. */
const makeData = (mib: number): string =>
  `dd if=/dev/urandom of=/tmp/data bs=1M count=${mib} 2>/dev/null; sha256sum </tmp/data | cut -c1-64`;

/** One of the numbers in /sys/block/<name>/stat, counted from 0 (Linux, Documentation/block/stat.rst). */
const WRITES = 4;
const DISCARDS = 11;
const FLUSHES = 15;

function statOf(text: string, field: number): number {
  return Number(text.trim().split(/\s+/)[field]);
}

async function guestStat(guest: Guest, field: number): Promise<number> {
  return statOf(await guest.run("cat /sys/block/vda/stat"), field);
}

realTest("a tree of files goes from disk to disk and is the same on the host", needs, {}, async (t) => {
  const random = Random.of(t);
  const tree = join(tempDir(t), "tree");
  const files = new Map<string, Buffer>();
  for (let i = 0; i < 400; i++) {
    const folder = `d${i % 20}`;
    mkdirSync(join(tree, folder), { recursive: true });
    const contents = random.bytes(random.pick([0, 1, 511, 512, 4096, 5000, 20_000, random.int(0, 150_000)]));
    files.set(`${folder}/f${i}`, contents);
    writeFileSync(join(tree, folder, `f${i}`), contents);
  }
  const archive = newImage(t, 0);
  await run("tar", ["-cf", archive, "-C", tree, "."]);
  const image = newImage(t, 64 * MIB);
  const disk = await startDisk(t, { file: image });
  const source = await startDisk(t, { file: archive, args: ["--read-only"] });
  const guest = await guestWith(t, disk);
  await plug(guest, source, "vdb", { id: "vu1", slot: 1 });

  await guest.run("mkfs.ext4 -q /dev/vda; mount -t ext4 /dev/vda /mnt");
  await guest.run("tar xf /dev/vdb -C /mnt && sync");
  await guest.run("umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount -t ext4 /dev/vda /mnt");
  const sums = await guest.run("cd /mnt && sha256sum d*/f*");
  assert.deepEqual(
    sums.split("\n").sort(),
    [...files].map(([name, contents]) => `${sha256(contents)}  ${name}`).sort(),
  );
  await guest.run("umount /mnt");
  await finish(guest, disk, source);

  await checkFileSystem(image);
  const copy = tempDir(t);
  await run(which("debugfs") ?? "debugfs", ["-R", `rdump / ${copy}`, image]);
  for (const [name, contents] of files) assert.ok(readFileSync(join(copy, name)).equals(contents), name);
});

realTest("partitions are where the partition table says", needs, {}, async (t) => {
  const image = newImage(t, 32 * MIB);
  const disk = await startDisk(t, { file: image });
  const guest = await guestWith(t, disk);
  await guest.run(
    "printf 'o\\nn\\np\\n1\\n2048\\n+8M\\nn\\np\\n2\\n20480\\n\\nw\\n' | fdisk -u /dev/vda >/dev/null 2>&1;" +
      "[ -b /dev/vda2 ]",
  );
  const places = await guest.run("cat /sys/block/vda/vda[12]/start /sys/block/vda/vda[12]/size");
  const written = await guest.run(
    `${makeData(6)}; dd if=/tmp/data of=/dev/vda2 bs=1M seek=1 conv=fsync 2>/dev/null`,
  );
  await finish(guest, disk);
  const bytes = readFileSync(image);
  assert.equal(bytes.readUInt16LE(510), 0xaa55);
  const entry = (n: number, field: number) => bytes.readUInt32LE(446 + n * 16 + field);
  assert.deepEqual(places.split("\n").map(Number), [entry(0, 8), entry(1, 8), entry(0, 12), entry(1, 12)]);
  const start = entry(1, 8) * 512 + MIB;
  assert.equal(sha256(bytes.subarray(start, start + 6 * MIB)), written);
});

realTest("what the guest discards and deletes gives its room back", needs, {}, async (t) => {
  const size = 48 * MIB;
  const image = imageOf(t, Buffer.alloc(size, 0xff));
  const disk = await startDisk(t, { file: image });
  const guest = await guestWith(t, disk);
  const room = () => allocated(image);
  const slack = 128 * 1024;

  const full = room();
  const discards = await guestStat(guest, DISCARDS);
  await guest.run("/bin/blkdiscard -o 4M -l 4M /dev/vda");
  assert.ok(Math.abs(full - room() - 4 * MIB) <= slack, `blkdiscard: ${full} to ${room()}`);
  assert.ok(await guestStat(guest, DISCARDS) > discards);
  await guest.run("/bin/blkdiscard -z -o 12M -l 2M /dev/vda");
  assert.ok(Math.abs(full - room() - 4 * MIB) <= slack, `blkdiscard -z: ${full} to ${room()}`);
  await guest.run("/bin/fallocate -p -o 20M -l 4M /dev/vda");
  assert.ok(Math.abs(full - room() - 8 * MIB) <= slack, `fallocate -p: ${full} to ${room()}`);
  await guest.run("/bin/fallocate -z -o 30M -l 1M /dev/vda");
  assert.ok(Math.abs(full - room() - 8 * MIB) <= slack, `fallocate -z: ${full} to ${room()}`);
  const expected = Buffer.alloc(size, 0xff);
  for (const [start, length] of [[4, 4], [12, 2], [20, 4], [30, 1]]) {
    expected.fill(0, start * MIB, (start + length) * MIB);
  }
  const seen = await guest.run("echo 3 >/proc/sys/vm/drop_caches; sha256sum </dev/vda | cut -c1-64");
  assert.equal(seen, sha256(expected));
  assert.equal(sha256(image), seen);

  await guest.run("mkfs.ext4 -q /dev/vda");
  const empty = room();
  assert.ok(empty < 8 * MIB, `after mkfs: ${empty}`);
  const fill = "dd if=/dev/urandom of=/mnt/big bs=1M count=12 conv=fsync 2>/dev/null";
  await guest.run(`mount -t ext4 /dev/vda /mnt; ${fill}`);
  assert.ok(room() > empty + 11 * MIB, `with the file: ${room()}, before ${empty}`);
  await guest.run("rm /mnt/big; sync");
  assert.ok(room() > empty + 11 * MIB, "nothing is discarded yet");
  await guest.run("fstrim /mnt");
  assert.ok(room() < empty + 2 * MIB, `after fstrim: ${room()}, before the file ${empty}`);
  await guest.run(`mount -o remount,discard /mnt; ${fill}`);
  assert.ok(room() > empty + 11 * MIB, `with the file: ${room()}, before ${empty}`);
  await guest.run("rm /mnt/big; sync");
  const deadline = Date.now() + 20_000;
  while (room() > empty + 2 * MIB && Date.now() < deadline) await sleep(20);
  assert.ok(room() < empty + 2 * MIB, `after rm with -o discard: ${room()}, before the file ${empty}`);
  await guest.run("umount /mnt");
  await finish(guest, disk);
  await checkFileSystem(image);
});

realTest("the guest's flushes and its choice of cache arrive", needs, {}, async (t) => {
  const image = newImage(t, 16 * MIB);
  const disk = await startDisk(t, { file: image, args: ["--trace"] });
  const guest = await guestWith(t, disk);
  const cache = "/sys/block/vda/cache_type";
  assert.equal(await guest.run(`cat ${cache}`), "write back");
  const synced = (at: number) =>
    guest.run(`dd if=/tmp/data of=/dev/vda bs=64k seek=${at} count=16 conv=fsync 2>/dev/null`);
  const written = await guest.run(makeData(1));
  const before = await guestStat(guest, FLUSHES);
  await synced(0);
  await synced(16);
  assert.equal(await guestStat(guest, FLUSHES), before + 2);
  // Write through: each write is durable, and the guest does not flush.
  await guest.run(`echo "write through" >${cache}`);
  assert.equal(await guest.run(`cat ${cache}`), "write through");
  await synced(32);
  assert.equal(await guestStat(guest, FLUSHES), before + 2);
  await guest.run(`echo "write back" >${cache}`);
  assert.equal(await guest.run(`cat ${cache}`), "write back");
  await synced(48);
  assert.equal(await guestStat(guest, FLUSHES), before + 3);
  const config = disk.child.output.split("\n").filter((line) => line.startsWith("→ SET_CONFIG"));
  assert.equal(config.length, 2, disk.child.output);
  await finish(guest, disk);
  const bytes = readFileSync(image);
  for (const at of [0, 1, 2, 3]) assert.equal(sha256(bytes.subarray(at * MIB, (at + 1) * MIB)), written);
});

const loopMissing = process.getuid?.() !== 0
  ? "only root may make loop devices"
  : which("losetup") === undefined
  ? "missing losetup"
  : !existsSync("/dev/loop-control")
  ? "this kernel has no loop devices"
  : "";

if (loopMissing) {
  test(`a block device is served, and is told to flush [${loopMissing}]`, { skip: loopMissing }, () => {});
} else {
  realTest("a block device is served, and is told to flush", needs, {}, async (t) => {
    const image = newImage(t, 16 * MIB);
    const loop = (await run("losetup", ["--find", "--show", image])).stdout.trim();
    onEnd(t, async () => {
      await run("losetup", ["--detach", loop]);
    });
    const hostFlushes = () => statOf(readFileSync(`/sys/block/${basename(loop)}/stat`, "utf8"), FLUSHES);
    const disk = await startDisk(t, { file: loop });
    const guest = await guestWith(t, disk);
    assert.equal(await guest.run("cat /sys/block/vda/size"), `${16 * MIB / 512}`);
    const written = await guest.run(makeData(4));
    const begin = hostFlushes();
    await guest.run("dd if=/tmp/data of=/dev/vda bs=1M oflag=direct 2>/dev/null");
    assert.equal(hostFlushes(), begin, "writes alone are not flushed");
    await guest.run("dd if=/tmp/data of=/dev/vda bs=1M seek=4 oflag=direct conv=fsync 2>/dev/null");
    assert.equal(hostFlushes(), begin + 1);
    await guest.run("echo 'write through' >/sys/block/vda/cache_type");
    const [writes, flushes] = [await guestStat(guest, WRITES), hostFlushes()];
    await guest.run("dd if=/tmp/data of=/dev/vda bs=256k seek=32 oflag=direct 2>/dev/null");
    const done = await guestStat(guest, WRITES) - writes;
    assert.ok(done >= 16);
    assert.equal(hostFlushes() - flushes, done, "every write is flushed");
    await guest.run("/bin/blkdiscard -o 12M -l 2M /dev/vda");
    await finish(guest, disk);
    const bytes = readFileSync(image);
    for (const at of [0, 4, 8]) assert.equal(sha256(bytes.subarray(at * MIB, (at + 4) * MIB)), written);
  });
}

realTest("a read-only disk mounts and refuses to change", needs, {}, async (t) => {
  const tree = tempDir(t);
  const contents = Random.of(t).bytes(3 * MIB);
  writeFileSync(join(tree, "file"), contents);
  const image = newImage(t, 16 * MIB);
  await run(which("mkfs.ext4") ?? "mkfs.ext4", ["-q", "-d", tree, image]);
  const before = sha256(image);
  const disk = await startDisk(t, { file: image, args: ["--read-only"] });
  const guest = await guestWith(t, disk);
  assert.equal(await guest.run("cat /sys/block/vda/ro"), "1");
  await guest.run("mount -t ext4 -o ro /dev/vda /mnt");
  assert.equal(await guest.run("sha256sum </mnt/file | cut -c1-64"), sha256(contents));
  await assert.rejects(guest.run("echo >/mnt/other"), /Read-only file system/);
  await assert.rejects(guest.run("mount -o remount,rw /mnt"), /status/);
  await assert.rejects(
    guest.run("dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync"),
    /Operation not permitted/,
  );
  await assert.rejects(guest.run("/bin/blkdiscard -f /dev/vda"), /status/);
  await guest.run("umount /mnt");
  await finish(guest, disk);
  assert.equal(sha256(image), before);
});

realTest("two processors on two queues, and two reboots", needs, { timeout: 90_000 }, async (t) => {
  const image = newImage(t, 32 * MIB);
  const disk = await startDisk(t, { file: image, args: ["--num-queues=2", "--id=two queues"] });
  const guest = await Guest.start(t, {
    smp: 2,
    modules: ["virtio_blk", "ext4"],
    devices: [
      ...["-chardev", `socket,id=c0,path=${disk.socket}`],
      ...["-device", "vhost-user-blk-pci,chardev=c0,num-queues=2"],
    ],
  });
  assert.equal(await guest.run("cat /sys/block/vda/mq/*/cpu_list"), "0\n1");
  // Each processor writes and reads its own half; its requests go over its own queue.
  const interrupts = async () =>
    (await guest.run("grep virtio.-req /proc/interrupts")).split("\n").map((line) => {
      const [, first, second] = line.trim().split(/\s+/).map(Number);
      return first + second;
    });
  const before = await interrupts();
  const script = (cpu: number) =>
    `taskset -c ${cpu} sh -c 'dd if=/dev/urandom of=/tmp/${cpu} bs=1M count=6 2>/dev/null
     dd if=/tmp/${cpu} of=/dev/vda bs=16k seek=${cpu * 1024} oflag=direct 2>/dev/null
     dd if=/dev/vda bs=16k skip=${
      cpu * 1024
    } count=384 iflag=direct 2>/dev/null | cmp - /tmp/${cpu} || echo differs'`;
  const said = await guest.run(`(${script(0)}) & (${script(1)}) & wait; sha256sum /tmp/[01] | cut -c1-64`);
  const sums = said.split("\n");
  assert.equal(sums.length, 2, said);
  const now = await interrupts();
  assert.equal(now.length, 2);
  for (const i of [0, 1]) assert.ok(now[i] - before[i] > 100, `queue ${i}: ${before} to ${now} interrupts`);
  const check = () => {
    const bytes = readFileSync(image);
    for (const i of [0, 1]) {
      assert.equal(sha256(bytes.subarray(i * 16 * MIB, i * 16 * MIB + 6 * MIB)), sums[i], `half ${i}`);
    }
  };
  check();
  for (const how of ["command", "button"] as const) {
    await guest.reboot(how);
    assert.equal(await guest.run("cat /sys/block/vda/serial"), "two queues");
    const seen = await guest.run(
      "for i in 0 1; do dd if=/dev/vda bs=1M skip=$((i * 16)) count=6 2>/dev/null | sha256sum | cut -c1-64; done",
    );
    assert.deepEqual(seen.split("\n"), sums, `after reboot by ${how}`);
    const more = await guest.run(
      `${makeData(2)}; dd if=/tmp/data of=/dev/vda bs=1M seek=8 conv=fsync 2>/dev/null`,
    );
    assert.equal(sha256(readFileSync(image).subarray(8 * MIB, 10 * MIB)), more);
  }
  check();
  await finish(guest, disk);
});

realTest("a disk is unplugged and plugged in again, and costs nothing while idle", needs, {}, async (t) => {
  const image = newImage(t, 16 * MIB);
  const disk = await startDisk(t, { file: image, args: ["--id=0123456789abcdefghij"] });
  const guest = await guestWith(t, disk);
  assert.equal(await guest.run("cat /sys/block/vda/serial"), "0123456789abcdefghij");
  const written = await guest.run(`${makeData(4)}; dd if=/tmp/data of=/dev/vda bs=1M 2>/dev/null`);
  // The runtime may still be compiling or collecting garbage; what spins would spin all the time.
  const used: number[] = [];
  for (let attempt = 0; attempt < 4 && (used.at(-1) ?? 40) >= 40; attempt++) {
    const begin = disk.cpuTime;
    await sleep(2000);
    used.push(disk.cpuTime - begin);
  }
  assert.ok((used.at(-1) ?? 40) < 40, `${used} ms of processor time in 2 s each`);
  for (let round = 0; round < 3; round++) {
    await guest.unplug();
    await guest.waitFor("[ ! -e /sys/block/vda ]");
    await disk.checkUnharmed();
    assert.equal(sha256(readFileSync(image).subarray(0, 4 * MIB)), written);
    await plug(guest, disk);
    assert.equal(
      await guest.run("dd if=/dev/vda bs=1M count=4 2>/dev/null | sha256sum | cut -c1-64"),
      written,
    );
  }
  await finish(guest, disk);
});

realTest("a disk grows and shrinks under its guest", needs, {}, async (t) => {
  const image = newImage(t, 16 * MIB);
  const disk = await startDisk(t, { file: image });
  const guest = await restoreGuest(t);
  const resize = (mib: number) => {
    truncateSync(image, mib * MIB);
    disk.child.kill("SIGHUP");
  };
  const seen = (mib: number) => guest.waitFor(`[ $(cat /sys/block/vda/size) = ${mib * MIB / 512} ]`);

  // Before there is a driver to tell: QEMU 10.0 would end if it were told then.
  await guest.qmp("stop");
  await guest.plug("vhost-user-blk-pci", disk.socket);
  resize(18);
  await sleep(200);
  await guest.qmp("cont");
  await guest.waitFor("[ -b /dev/vda ]");
  await seen(18);
  const written = await guest.run(
    `${makeData(8)}; dd if=/tmp/data of=/dev/vda bs=1M seek=8 conv=fsync 2>/dev/null`,
  );
  resize(40);
  await seen(40);
  await guest.run("dd if=/tmp/data of=/dev/vda bs=1M seek=32 conv=fsync 2>/dev/null");
  resize(24);
  await seen(24);
  // While nobody may be told.
  await guest.qmp("stop");
  resize(40);
  await sleep(200);
  await guest.qmp("cont");
  await seen(40);
  await guest.run("dd if=/tmp/data of=/dev/vda bs=1M seek=24 conv=fsync 2>/dev/null");
  await finish(guest, disk);
  const bytes = readFileSync(image);
  for (const at of [8, 24]) assert.equal(sha256(bytes.subarray(at * MIB, (at + 8) * MIB)), written);
  assert.ok(bytes.subarray(32 * MIB).equals(Buffer.alloc(8 * MIB)));
});

/**
 * Two programs in the guest that write to the disk without end, past the cache and through it, something else in each
 * round, and look after each round whether it is there.
 */
const writers = `
  for name in a b; do dd if=/dev/urandom of=/tmp/$name bs=1M count=1 2>/dev/null; done
  writer() {
    while true; do
      for name in a b; do
        dd if=/tmp/$name of=/dev/vda bs=$2 seek=$3 $4 2>/dev/null || echo "$1: $name not written" >>/tmp/bad
        dd if=/dev/vda bs=$2 skip=$3 count=$5 iflag=direct 2>/dev/null | cmp - /tmp/$name >>/tmp/bad 2>&1
        echo $1 >>/tmp/rounds
        [ ! -e /tmp/stop ] || { echo $name >/tmp/last$1; return; }
      done
    done
  }
  writer 0 4k 0 oflag=direct 256 &
  writer 1 1M 16 conv=fsync 1 &`;

/** Ends the writers. What they wrote must be on the disk, as they saw it and as the host does. */
async function endWriters(guest: Guest, image: string): Promise<void> {
  await guest.waitFor("[ $(grep -c 0 /tmp/rounds) -ge 2 -a $(grep -c 1 /tmp/rounds) -ge 2 ]", 20_000);
  await guest.run("touch /tmp/stop");
  await guest.waitFor("[ -e /tmp/last0 -a -e /tmp/last1 ]", 20_000);
  assert.equal(await guest.run("cat /tmp/bad; dmesg | grep 'I/O error' || true"), "");
  const sums = await guest.run("for i in 0 1; do sha256sum </tmp/$(cat /tmp/last$i) | cut -c1-64; done");
  const bytes = readFileSync(image);
  assert.deepEqual([0, 16].map((at) => sha256(bytes.subarray(at * MIB, (at + 1) * MIB))), sums.split("\n"));
}

realTest("a guest is paused and goes on while it writes", needs, {}, async (t) => {
  const random = Random.of(t);
  const image = newImage(t, 32 * MIB);
  const disk = await startDisk(t, { file: image });
  const guest = await guestWith(t, disk);
  await guest.run(writers);
  for (let i = 0; i < 20; i++) {
    await sleep(random.int(5, 80));
    await guest.qmp("stop");
    await sleep(random.int(0, 20));
    await guest.qmp("cont");
  }
  await endWriters(guest, image);
  await finish(guest, disk);
});

realTest("QEMU is killed; the next one finds all that was synced", needs, {}, async (t) => {
  const image = newImage(t, 64 * MIB);
  const disk = await startDisk(t, { file: image });
  const first = await guestWith(t, disk);
  await first.run("mkfs.ext4 -q /dev/vda; mount -t ext4 /dev/vda /mnt; sync");
  const before = allocated(image);
  const writing = first.run(`
    cd /mnt
    for i in $(seq 1 3000); do
      dd if=/dev/urandom of=$i bs=10k count=1 2>/dev/null
      sync $i
      sha256sum $i >>sums
      sync sums
      echo synced $i
    done`).then(() => "", (error) => `${error}`);
  // A megabyte in the image is a good number of files, with the journal.
  while (allocated(image) - before < MIB) await sleep(20);
  first.qemu.kill("SIGKILL");
  // The error has what the guest said until then.
  const synced = [...(await writing).matchAll(/^synced \d+$/gm)].length;
  assert.ok(synced >= 3, `${synced} files were synced`);
  await disk.checkUnharmed();

  const second = await guestWith(t, disk);
  await second.run("mount -t ext4 /dev/vda /mnt && cd /mnt && sha256sum -c sums >/dev/null");
  const found = Number(await second.run("wc -l </mnt/sums"));
  assert.ok(found >= synced, `${synced} files were synced, ${found} are there`);
  await second.run("umount /mnt && e2fsck -fn /dev/vda");
  await finish(second, disk);
  await checkFileSystem(image);
});

realTest("the back-end is killed while the guest writes; a new one takes over", needs, {}, async (t) => {
  const random = Random.of(t);
  const image = newImage(t, 32 * MIB);
  let disk = await startDisk(t, { file: image });
  const guest = await guestWith(t, disk, { reconnectMs: 50 });
  await guest.run(writers);
  for (let i = 0; i < 6; i++) {
    await sleep(random.int(100, 400));
    disk.child.kill("SIGKILL");
    await disk.child.ended;
    disk = await startDisk(t, { file: image, replaces: disk });
  }
  await endWriters(guest, image);
  await finish(guest, disk);
});

realTest("SeaBIOS starts what is on the disk", ["qemu"], {}, async (t) => {
  await seaBiosStarts(t, "vhost-user-blk-pci", (file) => startDisk(t, { file }));
});
