import assert from "node:assert/strict";
import { test } from "node:test";
import { mask } from "../../src/protocol/mod.ts";
import { blkConfig, BlkDevice, blkFeatures, SECTOR } from "../../src/devices/blk/mod.ts";
import { BlkDriver, type BlkDriverOptions, DRIVER_FEATURES } from "../../src/tools/blk_driver.ts";
import { History, WrongContentError } from "../crash/history.ts";
import { Load } from "../crash/load.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { InProcess } from "../support/in_process.ts";
import { Random } from "../support/random.ts";
import { type Fate, PowerStorage } from "./power_storage.ts";

const SECTORS = 256;
const LIMIT = { timeout: 30_000 };
const FATES: readonly Fate[] = ["dropped", "kept", "some", "torn"];
/** Times that the power is cut, while a load runs. */
const CUTS = 60;

const { FLUSH, CONFIG_WCE } = blkFeatures;

/** Which driver it is, and whether it relies on every write being durable. */
interface Case {
  readonly name: string;
  readonly options?: BlkDriverOptions;
  readonly writeThrough: boolean;
  /** What it sets the cache to. */
  readonly writeback?: number;
}

const cases: readonly Case[] = [
  { name: "flushes", writeThrough: false },
  {
    name: "flushes, and the cache cannot be chosen",
    options: { deviceFeatures: DRIVER_FEATURES & ~mask(CONFIG_WCE) },
    writeThrough: false,
  },
  { name: "writeback was set to 0", writeback: 0, writeThrough: true },
  {
    name: "FLUSH was not negotiated, nor a choice of the cache",
    options: { deviceFeatures: DRIVER_FEATURES & ~mask(FLUSH, CONFIG_WCE) },
    writeThrough: true,
  },
  {
    name: "writeback was set to 0, and FLUSH was not negotiated",
    options: { deviceFeatures: DRIVER_FEATURES & ~mask(FLUSH) },
    writeback: 0,
    writeThrough: true,
  },
];

/** Cuts the power again and again under a load, in thought, and looks at what would be left. */
async function cutPower(t: Scope, each: Case, lies: boolean): Promise<void> {
  const random = new Random(7);
  // Requests overtake each other.
  const delay = (): number => random.int(0, 3);
  const storage = new PowerStorage(new Uint8Array(SECTORS * SECTOR), { lies, delay });
  const served = await InProcess.serve(t, new BlkDevice({ storage }));
  const disk = await BlkDriver.connect(served.socket, { depth: 16, ...each.options });
  onEnd(t, () => disk.close());
  if (each.writeback !== undefined) {
    await disk.frontEnd.writeConfig(blkConfig.offsets.writeback, Uint8Array.of(each.writeback));
  }
  const history = new History(SECTORS, true);
  const load = new Load(disk, history, random, { writeThrough: each.writeThrough });
  for (let cut = 0; cut < CUTS; cut++) {
    await load.more(random.int(1, 20));
    for (const fate of FATES) history.check(storage.after(storage.events.length, fate, random), "durable");
  }
  await load.end();
}

for (const each of cases) {
  test(
    `what the driver may rely on is there when the power is cut: ${each.name}`,
    LIMIT,
    (t) => cutPower(t, each, false),
  );
  test(`a disk that lies about flushing is found: ${each.name}`, LIMIT, async (t) => {
    await assert.rejects(cutPower(t, each, true), WrongContentError);
  });
}

test("a driver that flushes and does not ask for more gets no more", LIMIT, async (t) => {
  const each = { ...cases[0], writeThrough: true };
  await assert.rejects(cutPower(t, each, false), WrongContentError);
});
