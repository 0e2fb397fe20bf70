import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { SECTOR } from "../../src/devices/blk/mod.ts";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { BlkDriver, DRIVER_FEATURES } from "../../src/tools/blk_driver.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { newImage } from "../support/image.ts";
import { startDisk } from "../support/our_backend.ts";
import type { Random } from "../support/random.ts";
import { History } from "./history.ts";
import { Load } from "./load.ts";

/** Sectors that are written to: few, so that writes meet. */
export const SECTORS = 512;

/** How a disk is served and driven. */
export interface Setting {
  /** Packed rings, or split. */
  readonly packed: boolean;
  /** Whether requests are returned in the order in which they came (IN_ORDER). */
  readonly inOrder: boolean;
  /** Whether the front-end has the requests in flight recorded; otherwise it submits all of them again. */
  readonly recorded: boolean;
  /** `--aio`. */
  readonly aio: "io_uring" | "sync";
  /** `--workers`; absent: none. */
  readonly workers?: number;
}

/** A setting in words. */
export function nameOf({ packed, inOrder, recorded, aio, workers }: Setting): string {
  return [
    packed ? "packed" : "split",
    inOrder ? "in order" : "any order",
    recorded ? "recorded" : "submitted again",
    aio,
    workers === undefined ? "no workers" : `${workers} workers`,
  ].join(", ");
}

/** What was gone through. */
export interface Survived {
  /** Back-ends that were killed. */
  kills: number;
  /** Writes that were under way then, in all. */
  inFlight: number;
  /** Writes that were acknowledged. */
  writes: number;
}

/** What is done on the way. */
export interface Hooks {
  /** Called for every kill. */
  onKill?(survived: Readonly<Survived>): void;
  /** Called while there is no back-end. */
  whileDead?(image: string): void;
}

/** When the next back-end is killed: at once, after a while or after some progress. */
async function moment(random: Random, load: Load): Promise<void> {
  switch (random.int(0, 3)) {
    case 0:
      return;
    case 1:
      return void await sleep(random.int(0, 60));
    default:
      await load.more(random.int(1, 300));
  }
}

/**
 * Kills a back-end again and again while its disk is written to, and has another take its place each time. In the end every
 * write that was acknowledged must be there, and none may have been done after a later one.
 *
 * @throws {WrongContentError}
 */
export async function killBackends(
  scope: Scope,
  random: Random,
  setting: Setting,
  kills: number,
  hooks: Hooks = {},
): Promise<Survived> {
  const { packed, inOrder, recorded, aio, workers } = setting;
  const image = newImage(scope, SECTORS * SECTOR);
  const options = { file: image, args: ["--num-queues=2", `--aio=${aio}`], workers };
  let backend = await startDisk(scope, options);
  const disk = await BlkDriver.connect(backend.socket, {
    numQueues: 2,
    queueSize: 32,
    depth: 16,
    withoutFeatures: packed ? 0n : mask(ringFeatures.RING_PACKED),
    withoutProtocolFeatures: recorded ? 0n : mask(protocolFeatures.INFLIGHT_SHMFD),
    deviceFeatures: DRIVER_FEATURES | (inOrder ? mask(ringFeatures.IN_ORDER) : 0n),
    reconnect: { firstDelay: 1, longestDelay: 10 },
  });
  onEnd(scope, () => disk.frontEnd.close());
  assert.equal((disk.frontEnd.features & mask(ringFeatures.RING_PACKED)) !== 0n, packed);
  assert.equal((disk.frontEnd.features & mask(ringFeatures.IN_ORDER)) !== 0n, inOrder);
  const history = new History(SECTORS);
  const load = new Load(disk, history, random);
  const survived = { kills: 0, inFlight: 0, writes: 0 };
  while (survived.kills < kills) {
    await moment(random, load);
    load.check();
    backend.child.kill("SIGKILL");
    survived.inFlight += history.pending;
    await backend.child.ended;
    survived.kills++;
    survived.writes = history.acknowledged;
    hooks.onKill?.(survived);
    hooks.whileDead?.(image);
    backend = await startDisk(scope, { ...options, replaces: backend });
  }
  await load.more(200);
  await load.end();
  history.check(await disk.read(0, SECTORS * SECTOR));
  await disk.flush();
  history.check(readFileSync(image));
  await disk.close();
  await backend.checkUnharmed();
  survived.writes = history.acknowledged;
  return survived;
}
