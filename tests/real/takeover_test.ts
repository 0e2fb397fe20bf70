import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { MIB, newImage } from "../support/image.ts";
import { restoreGuest } from "../support/snapshot.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { Child } from "../support/process.ts";
import { blkioDisk } from "../support/qemu_io.ts";
import { Random } from "../support/random.ts";
import { Succession } from "../takeover/succession.ts";

// A new process goes on with front-ends that cannot connect again: to them the old one's end would be the end.

const CHANGES = 5;

for (const workers of [undefined, 2]) {
  const title = `qemu-img, which cannot connect again, writes across ${CHANGES} processes`;
  realTest(
    workers === undefined ? title : `${title}: workers`,
    ["qemu-img", "libblkio"],
    { timeout: 120_000 },
    async (t) => {
      const random = Random.of(t);
      const image = newImage(t, 8 * MIB);
      const disks = await Succession.start(t, { file: image, workers });
      const pattern = random.int(1, 255);
      // It would take hours.
      const child = Child.start(t, peerPath("qemu-img"), [
        ...["bench", "-c1000000000", "-d32", "-s4k", "-tnone", "-w", `--pattern=${pattern}`],
        ...["--image-opts", blkioDisk(disks.socket)],
      ]);
      // It writes every page again and again: also over what is zeroed here.
      const writes = async (): Promise<void> => {
        const file = openSync(image, "r+");
        const pages = [0, 1023, 2047].map((page) => page * 4096);
        for (const at of pages) writeSync(file, Buffer.alloc(4096), 0, 4096, at);
        closeSync(file);
        while (pages.some((at) => readFileSync(image)[at] !== pattern)) {
          assert.equal(child.code, undefined, child.output);
          await sleep(1);
        }
      };
      await writes();
      for (let change = 1; change <= CHANGES; change++) {
        await disks.next();
        await writes();
      }
      assert.ok(readFileSync(image).equals(Buffer.alloc(8 * MIB, pattern)), "every page is whole");
      child.kill("SIGTERM");
      await child.ended;
      await disks.current.checkUnharmed();
      t.diagnostic(`rings stood still for ${disks.pauses.join(", ")} ms`);
    },
  );
}

realTest(
  "Linux in QEMU, told nothing of connecting again, writes files across five processes",
  ["qemu", "guest"],
  { timeout: 180_000 },
  async (t) => {
    const image = newImage(t, 64 * MIB);
    const disks = await Succession.start(t, { file: image });
    const guest = await restoreGuest(t);
    await guest.plug("vhost-user-blk-pci", disks.socket);
    await guest.waitFor("[ -b /dev/vda ]");
    await guest.run("mkfs.ext4 -q /dev/vda; mount -t ext4 /dev/vda /mnt; mkdir /mnt/d");
    // A file after the other, each on the disk before the next; and how long the longest took, in 1/100 s by /proc/uptime.
    await guest.run(
      "(i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); " +
        "dd if=/dev/urandom of=/tmp/f bs=16k count=1 2>/dev/null; " +
        "cat /tmp/f >/mnt/d/$i; sync; sha256sum </tmp/f >>/tmp/sums; echo $i >/tmp/done; done; touch /tmp/over) " +
        ">/dev/null 2>&1 &",
    );
    const done = async (): Promise<number> => Number(await guest.run("cat /tmp/done 2>/dev/null || echo 0"));
    const more = async (count: number): Promise<void> => {
      const goal = await done() + count;
      await guest.waitFor(`[ "$(cat /tmp/done 2>/dev/null || echo 0)" -ge ${goal} ]`, 60_000);
    };
    for (let change = 1; change <= CHANGES; change++) {
      await more(3);
      await disks.next();
    }
    await more(3);
    await guest.run("touch /tmp/stop");
    await guest.waitFor("[ -e /tmp/over ]", 60_000);
    await guest.run("umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount -t ext4 /dev/vda /mnt");
    const [wanted, found] = [
      await guest.run("cut -c1-64 /tmp/sums"),
      await guest.run(
        "n=$(cat /tmp/done); i=1; while [ $i -le $n ]; do sha256sum </mnt/d/$i | cut -c1-64; i=$((i+1)); done",
      ),
    ];
    assert.ok(wanted.split("\n").length >= 3 * CHANGES, wanted);
    assert.equal(found, wanted);
    assert.doesNotMatch(await guest.run("dmesg"), /I\/O error|blk_update_request/);
    await guest.stop();
    await disks.current.checkUnharmed();
    t.diagnostic(`rings stood still for ${disks.pauses.join(", ")} ms`);
  },
);

realTest(
  "a SCSI host and an entropy device of Linux in QEMU change their processes",
  ["qemu", "guest"],
  { timeout: 180_000 },
  async (t) => {
    const image = newImage(t, 16 * MIB);
    const hosts = await Succession.of(t, "scsi", [`--lun=file:${image}`]);
    const entropy = await Succession.of(t, "rng", []);
    const guest = await restoreGuest(t);
    await guest.plug("vhost-user-scsi-pci", hosts.socket);
    await guest.plug("vhost-user-rng-pci", entropy.socket, { id: "vu1", slot: 1 });
    await guest.waitFor("[ -b /dev/sda ] && grep -q virtio /sys/class/misc/hw_random/rng_available");
    for (let change = 1; change <= CHANGES; change++) {
      // Under way while the process changes.
      await guest.run(
        "rm -f /tmp/over; (dd if=/dev/urandom of=/tmp/data bs=1M count=4; dd if=/tmp/data of=/dev/sda bs=64k " +
          "oflag=direct; touch /tmp/over) >/tmp/said 2>&1 &",
      );
      await hosts.next();
      await entropy.next();
      await guest.waitFor("[ -e /tmp/over ]", 60_000);
      assert.doesNotMatch(await guest.run("cat /tmp/said"), /rror/);
      const [wanted, found] = (await guest.run(
        "sha256sum </tmp/data; dd if=/dev/sda bs=64k count=64 iflag=direct 2>/dev/null | sha256sum",
      )).split("\n");
      assert.equal(found, wanted);
      assert.equal((await guest.run("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c")).trim(), "64");
    }
    await guest.stop();
    await hosts.current.checkUnharmed();
    await entropy.current.checkUnharmed();
    t.diagnostic(`rings stood still for ${[...hosts.pauses, ...entropy.pauses].join(", ")} ms`);
  },
);
