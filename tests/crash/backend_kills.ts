import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { SECTOR } from "../../src/devices/blk/mod.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { newImage } from "../support/image.ts";
import { startDisk } from "../support/our_backend.ts";
import type { Random } from "../support/random.ts";
import { History } from "./history.ts";
import { Load } from "./load.ts";
import { diskArguments, drive, SECTORS, type Setting } from "./setting.ts";
import type { Survived } from "./survived.ts";

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
  const image = newImage(scope, SECTORS * SECTOR);
  const options = { file: image, args: diskArguments(setting), workers: setting.workers };
  let backend = await startDisk(scope, options);
  const disk = await drive(backend.socket, setting, { reconnect: { firstDelay: 1, longestDelay: 10 } });
  onEnd(scope, () => disk.frontEnd.close());
  const history = new History(SECTORS);
  const load = new Load(disk, history, random);
  const survived: Survived = { kills: 0, inFlight: 0, writes: 0 };
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
