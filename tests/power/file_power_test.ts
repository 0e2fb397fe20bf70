import assert from "node:assert/strict";
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { SECTOR } from "../../src/devices/blk/mod.ts";
import { BlkDriver, type BlkDriverOptions, DRIVER_FEATURES } from "../../src/tools/blk_driver.ts";
import { blkFeatures } from "../../src/devices/blk/mod.ts";
import { mask } from "../../src/protocol/mod.ts";
import { History, WrongContentError } from "../crash/history.ts";
import { Load } from "../crash/load.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { MIB, newImage } from "../support/image.ts";
import { hostFileSystem, loopDevice, loopMissing } from "../support/loop.ts";
import { startDisk } from "../support/our_backend.ts";
import { run } from "../support/process.ts";
import { Random } from "../support/random.ts";

// The file below our disk: what would be left of it, if the host lost power now. A loop device shows that: what is in the
// host's page cache is not in the file behind it.

const SECTORS = 2048;
/** Times that the power is cut. */
const CUTS = 6;
const { FLUSH, CONFIG_WCE } = blkFeatures;

/** How the disk is served and used. */
interface Case {
  readonly args: readonly string[];
  readonly workers?: number;
  readonly writeThrough?: boolean;
}

const cases: readonly Case[] = [
  { args: ["--aio=io_uring"] },
  { args: ["--aio=sync"] },
  { args: ["--aio=io_uring", "--direct"] },
  { args: ["--aio=io_uring"], workers: 2 },
  { args: ["--aio=io_uring"], writeThrough: true },
  { args: ["--aio=sync"], writeThrough: true },
];

function nameOf({ args, workers, writeThrough }: Case): string {
  const more = [
    workers === undefined ? [] : `${workers} workers`,
    writeThrough ? "FLUSH was not negotiated" : [],
  ];
  return [...args, ...more.flat()].join(", ");
}

/** A disk's file, and what a loss of power would leave of it. */
interface Below {
  readonly file: string;
  left(): Promise<Uint8Array>;
}

/** A block device. */
async function blockDevice(t: Scope): Promise<Below> {
  const behind = newImage(t, SECTORS * SECTOR);
  return { file: await loopDevice(t, behind), left: () => Promise.resolve(readFileSync(behind)) };
}

/** A file with holes, on a file system that is itself left as the power loss finds it, and recovered. */
async function fileOnExt4(t: Scope): Promise<Below> {
  const host = await hostFileSystem(t, 16 * MIB);
  const file = join(host.folder, "image");
  writeFileSync(file, "");
  truncateSync(file, SECTORS * SECTOR);
  await run("sync", ["-f", host.folder]);
  const place = tempDir(t);
  return {
    file,
    left: async () => {
      const [copy, found] = [join(place, "copy"), join(place, "found")];
      copyFileSync(host.file, copy);
      const { code, stdout } = await run("e2fsck", ["-f", "-p", copy], { check: false });
      assert.ok(code <= 1, stdout);
      await run("debugfs", ["-R", `dump /image ${found}`, copy]);
      return readFileSync(found);
    },
  };
}

/** Whether what is left is held against what was flushed; or against all that was written, which nobody has promised. */
async function cutPower(t: Scope, below: Below, each: Case, promised: boolean): Promise<void> {
  const { args, workers, writeThrough = false } = each;
  const random = new Random(21);
  const backend = await startDisk(t, { file: below.file, args: ["--num-queues=2", ...args], workers });
  const options: BlkDriverOptions = {
    numQueues: 2,
    depth: 16,
    ...writeThrough ? { deviceFeatures: DRIVER_FEATURES & ~mask(FLUSH, CONFIG_WCE) } : {},
  };
  const disk = await BlkDriver.connect(backend.socket, options);
  onEnd(t, () => disk.close());
  const history = new History(SECTORS, true);
  for (let cut = 0; cut < CUTS; cut++) {
    // Nothing is under way while the copy is made, or it would be of no moment.
    const load = new Load(disk, history, random, { writeThrough: writeThrough || !promised });
    await load.more(random.int(20, 200));
    await load.end();
    history.check(await below.left(), "durable");
  }
}

const belows = { "a block device": blockDevice, "a file on ext4": fileOnExt4 };

for (const [what, make] of Object.entries(belows)) {
  const declare = (name: string, act: (t: Scope) => Promise<void>): void => {
    if (loopMissing) test(`${name} [${loopMissing}]`, { skip: loopMissing }, () => {});
    else test(name, { timeout: 90_000 }, act);
  };
  for (const each of cases) {
    declare(
      `what was flushed is there when the host loses power: ${what}, ${nameOf(each)}`,
      async (t) => await cutPower(t, await make(t), each, true),
    );
  }
  declare(`what was not flushed may be lost when the host loses power: ${what}`, async (t) => {
    await assert.rejects(cutPower(t, await make(t), cases[0], false), WrongContentError);
  });
}
