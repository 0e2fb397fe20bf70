import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { BlkDevice } from "../../src/devices/blk/mod.ts";
import { InProcess } from "../support/in_process.ts";
import { type PeerName, realTest } from "../support/peers.ts";
import { Random } from "../support/random.ts";
import { restoreGuest } from "../support/snapshot.ts";
import { type Fate, PowerStorage } from "./power_storage.ts";
import { checkRecovered, record, type RecordedRun, type RunOptions } from "./recorded_run.ts";

// ext4 of a Linux guest, on a disk that loses power at every moment of a recorded run.

const needs: readonly PeerName[] = ["qemu", "guest"];
const FATES: readonly Fate[] = ["dropped", "kept", "some", "torn"];
/** Disks that are checked at the same time. */
const AT_ONCE = 2;

/** Checks what would be left after each event, with each fate in turn. Returns how many disks there were. */
async function checkCuts(t: TestContext, run: RecordedRun, random: Random): Promise<number> {
  const { storage } = run;
  let cut = 0;
  const check = async (): Promise<void> => {
    for (let mine = cut++; mine <= storage.events.length; mine = cut++) {
      const fate = FATES[mine % FATES.length];
      try {
        await checkRecovered(t, storage.after(mine, fate, random), run.filesAt(mine));
      } catch (error) {
        throw new Error(
          `power cut after event ${mine} of ${storage.events.length}, what was not flushed ${fate}`,
          {
            cause: error,
          },
        );
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, check));
  return storage.events.length + 1;
}

async function recorded(t: TestContext, random: Random, options: RunOptions): Promise<RecordedRun> {
  return await record(t, await restoreGuest(t), random, options);
}

realTest(
  "a guest's file system outlives a loss of power at every moment",
  needs,
  { timeout: 300_000 },
  async (t) => {
    const random = new Random(11);
    const guest = await restoreGuest(t);
    const run = await record(t, guest, random, { steps: 36 });
    const { storage } = run;
    assert.ok(storage.flushes > 36, `${storage.flushes} flushes`);
    const cuts = await checkCuts(t, run, random);
    t.diagnostic(`${cuts} losses of power, ${storage.flushes} flushes`);
    assert.ok(cuts > 200, `${cuts} events`);

    // The guest itself finds the same, for some of them.
    const disk = new PowerStorage(storage.contents);
    const served = await InProcess.serve(t, new BlkDevice({ storage: disk }));
    await guest.plug("vhost-user-blk-pci", served.socket);
    await guest.waitFor("[ -b /dev/vda ]");
    let recoveries = 0;
    for (let i = 0; i < 24; i++) {
      const cut = random.int(0, storage.events.length);
      const fate = FATES[i % FATES.length];
      disk.replace(storage.after(cut, fate, random));
      const files = run.filesAt(cut);
      const sums = await guest.run(`
      set -e
      echo 3 >/proc/sys/vm/drop_caches
      dmesg -c >/dev/null
      mount -t ext4 /dev/vda /mnt
      dmesg | grep -c 'recovery complete' || true
      cd /mnt
      for name in ${[...files.keys()].join(" ")}; do sha256sum $name; done
      cd /
      umount /mnt`);
      const [recovered, ...lines] = sums.split("\n");
      recoveries += Number(recovered);
      assert.deepEqual(
        lines.filter((line) => line !== ""),
        [...files].map(([name, sum]) => `${sum}  ${name}`),
      );
      await checkRecovered(t, disk.contents, files);
    }
    t.diagnostic(`24 mounted by the guest, of which ${recoveries} had to be recovered`);
    assert.ok(recoveries > 5);
    await guest.stop();
  },
);

realTest("the same without flushes, as every write is durable", needs, { timeout: 200_000 }, async (t) => {
  const random = new Random(12);
  const run = await recorded(t, random, { steps: 12, writeThrough: true });
  const writes = run.storage.events.filter(({ kind }) => kind === "write").length;
  assert.ok(run.storage.flushes >= writes / 2, `${run.storage.flushes} flushes of ${writes} writes`);
  t.diagnostic(`${await checkCuts(t, run, random)} losses of power`);
});

realTest("a disk that lies about flushing loses what was synced", needs, { timeout: 200_000 }, async (t) => {
  const random = new Random(13);
  const run = await recorded(t, random, { steps: 6, lies: true });
  assert.ok(run.storage.flushes > 5);
  await assert.rejects(checkCuts(t, run, random), /power cut after event/);
});
