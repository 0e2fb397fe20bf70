import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { MIB, newImage } from "../support/image.ts";
import { startDisk } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

realTest(
  "a Linux guest sees the faults of its disk, and lives with them",
  ["qemu", "guest"],
  {},
  async (t) => {
    const image = newImage(t, 32 * MIB);
    // Where in MiB, and what goes wrong there.
    const at = (mib: number): string => `sector=${2048 * mib}-${2048 * (mib + 1) - 1}`;
    const rules = [
      `blk.write:${at(1)}:every=10:error=EIO`,
      `blk.read:${at(2)}:delay=700`,
      `blk.write:${at(3)}:once:stall=1500`,
      `blk.read:${at(4)}:corrupt`,
      `blk.write:${at(5)}:lose`,
      `blk.write:${at(6)}:error=EIO`,
    ];
    const bytes = new Uint8Array(4096).fill(0x5a);
    const contents = readFileSync(image);
    for (const mib of [2, 4]) contents.set(bytes, mib * MIB);
    writeFileSync(image, contents);
    const disk = await startDisk(t, { file: image, args: rules.map((rule) => `--fault=${rule}`) });
    const guest = await restoreGuest(t);
    await guest.plug("vhost-user-blk-pci", disk.socket);
    await guest.waitFor("[ -b /dev/vda ]");
    const block = (mib: number): number => 256 * mib;

    const failed = await guest.run(
      `for i in $(seq 1 30); do dd if=/dev/zero of=/dev/vda bs=4k count=1 seek=$((${
        block(1)
      } + i)) oflag=direct 2>/dev/null || echo $i; done`,
    );
    assert.deepEqual(failed.split("\n").filter(Boolean), ["10", "20", "30"]);
    await guest.waitFor("dmesg | grep -q 'I/O error, dev vda, sector'");

    // Without direct I/O the error comes with fsync.
    const synced = await guest.run(
      `dd if=/dev/zero of=/dev/vda bs=4k count=4 seek=${block(6)} conv=fsync 2>&1 || echo failed`,
    );
    assert.match(synced, /Input\/output error/);
    assert.match(synced, /failed/);

    const timed = async (command: string): Promise<number> => {
      const [start, end] = (await guest.run(
        `cut -d' ' -f1 /proc/uptime; ${command}; cut -d' ' -f1 /proc/uptime`,
      )).trim().split("\n").map(Number);
      return end - start;
    };
    const slow = await timed(
      `dd if=/dev/vda of=/tmp/slow bs=4k count=1 skip=${block(2)} iflag=direct 2>/dev/null`,
    );
    assert.ok(slow >= 0.69, `a delayed read took ${slow} s`);
    const stalled = await timed(
      `dd if=/dev/zero of=/dev/vda bs=4k count=1 seek=${block(3)} oflag=direct 2>/dev/null`,
    );
    assert.ok(stalled >= 1.49, `a write into a ring that stood still took ${stalled} s`);
    const again = await guest.run(
      `dd if=/dev/zero of=/dev/vda bs=4k count=1 seek=${block(3)} oflag=direct 2>/dev/null && echo fine`,
    );
    assert.match(again, /fine/);

    const different = await guest.run(
      `dd if=/dev/vda of=/tmp/bad bs=4k count=1 skip=${block(4)} iflag=direct 2>/dev/null; ` +
        "cmp -l /tmp/slow /tmp/bad | wc -l",
    );
    assert.equal(different.trim(), "1", "one byte is wrong");

    await guest.run(
      `dd if=/dev/urandom of=/dev/vda bs=4k count=1 seek=${block(5)} oflag=direct 2>/dev/null`,
    );
    assert.ok(
      readFileSync(image).subarray(5 * MIB, 6 * MIB).every((byte) => byte === 0),
      "the write is lost",
    );
    await guest.stop();
    await disk.checkUnharmed();
    disk.child.kill("SIGTERM");
    await disk.child.waitEnd();
    assert.match(disk.child.output, /^fault blk\.write:\S+:every=10:error=EIO: 3 of 30 requests$/m);
  },
);
