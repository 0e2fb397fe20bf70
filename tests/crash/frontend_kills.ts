import assert from "node:assert/strict";
import { readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { SECTOR } from "../../src/devices/blk/mod.ts";
import { type Scope, tempDir } from "../support/cleanup.ts";
import { newImage } from "../support/image.ts";
import { root, startDeno, startDisk } from "../support/our_backend.ts";
import type { Random } from "../support/random.ts";
import { History } from "./history.ts";
import { replay } from "./journal.ts";
import { diskArguments, drive, SECTORS, type Setting } from "./setting.ts";
import type { Survived } from "./survived.ts";

/** How long a front-end may take to get going, milliseconds. */
const PATIENCE = 20_000;

/** Bytes of a file; none when there is no such file. */
const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0;

/**
 * Kills front-ends, one after the other, while they write to a disk. The back-end must let go of all that was theirs and
 * serve the next; what was acknowledged must be there, and nothing that a dead one has asked for may be done later.
 *
 * @param onKill called for every kill
 * @throws {WrongContentError}
 */
export async function killFrontEnds(
  scope: Scope,
  random: Random,
  setting: Setting,
  kills: number,
  onKill: (survived: Readonly<Survived>) => void = () => {},
): Promise<Survived> {
  const image = newImage(scope, SECTORS * SECTOR);
  const journal = join(tempDir(scope), "journal");
  const backend = await startDisk(scope, {
    file: image,
    args: diskArguments(setting),
    workers: setting.workers,
  });
  const history = new History(SECTORS);
  const survived: Survived = { kills: 0, inFlight: 0, writes: 0 };
  while (survived.kills < kills) {
    rmSync(journal, { force: true });
    const frontEnd = startDeno(scope, [
      ...[`--allow-read`, `--allow-write=${journal}`, join(root, "tests/crash/frontend_program.ts")],
      ...[backend.socket, journal, `${history.issued}`, `${random.int(0, 2 ** 31)}`, JSON.stringify(setting)],
    ]);
    const enough = random.int(0, 9) === 0 ? 0 : random.int(1, 12_000);
    for (const deadline = Date.now() + PATIENCE; sizeOf(journal) < enough; await sleep(1)) {
      assert.equal(frontEnd.code, undefined, frontEnd.output);
      assert.ok(Date.now() < deadline, `it does not write: ${frontEnd.output}`);
    }
    // Some are killed on their way to the disk.
    if (enough === 0) await sleep(random.int(0, 400));
    frontEnd.kill("SIGKILL");
    await frontEnd.ended;
    const written = sizeOf(journal) === 0 ? new Uint8Array() : readFileSync(journal);
    // Who has written anything was served, so the one before has left.
    if (written.length > 0) history.abandon();
    survived.inFlight += replay(history, written);
    survived.kills++;
    survived.writes = history.acknowledged;
    onKill(survived);
    if (random.int(0, 1) === 0 && survived.kills < kills) continue;

    const disk = await drive(backend.socket, setting);
    history.abandon();
    history.check(await disk.read(0, SECTORS * SECTOR));
    history.check(readFileSync(image));
    await disk.close();
    await backend.checkUnharmed();
  }
  return survived;
}
