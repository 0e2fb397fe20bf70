/**
 * A guest's file system at work, recorded, and what must be found in it whenever the power was cut.
 *
 * @module
 */

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BlkDevice } from "../../src/devices/blk/mod.ts";
import { type Scope, tempDir } from "../support/cleanup.ts";
import type { Guest } from "../support/guest.ts";
import { MIB, newImage, sha256 } from "../support/image.ts";
import { InProcess } from "../support/in_process.ts";
import { run } from "../support/process.ts";
import type { Random } from "../support/random.ts";
import { type PowerOptions, PowerStorage } from "./power_storage.ts";

/** A file's checksum by its name. */
type Files = ReadonlyMap<string, string>;

/** A moment at which the guest was told that all is durable. */
interface Mark {
  /** Events of the disk until then. */
  readonly cut: number;
  /** What is there from then on. */
  readonly files: Files;
  /** What the step that comes next works on: it may be as before, as after, or in between. */
  readonly next: ReadonlySet<string>;
}

/** A run that was recorded. */
export class RecordedRun {
  /** The disk. */
  readonly storage: PowerStorage;
  readonly #marks: readonly Mark[];

  constructor(storage: PowerStorage, marks: readonly Mark[]) {
    this.storage = storage;
    this.#marks = marks;
  }

  /** What must be there when the power was cut after so many events. */
  filesAt(cut: number): Files {
    const mark = this.#marks.findLast((mark) => mark.cut <= cut);
    return new Map([...mark?.files ?? []].filter(([name]) => !mark?.next.has(name)));
  }
}

/** A step of the guest: a script that prints the checksum of the file, if there is one in the end, and is durable then. */
interface Step {
  readonly script: string;
  readonly touches: readonly string[];
  /** The file that the checksum is of. */
  readonly leaves?: string;
}

function step(random: Random, files: readonly string[], fresh: string): Step {
  const size = random.pick([1, 700, 4096, 9000, 30_000, 70_000]);
  const data = `head -c ${size} /dev/urandom`;
  const old = files.length > 0 ? random.pick(files) : undefined;
  // What is not synced goes to the disk with what is, and may be lost.
  const junk = `${data} > junk$((RANDOM % 4)); `;
  const create = {
    script: `${junk}${data} > ${fresh}; sync ${fresh}; sha256sum < ${fresh}`,
    touches: [fresh],
    leaves: fresh,
  };
  switch (old === undefined ? 0 : random.int(0, 5)) {
    case 1:
      return {
        script: `${junk}${data} > new; sync new; mv new ${old}; sync .; sha256sum < ${old}`,
        touches: [`${old}`],
        leaves: old,
      };
    case 2:
      return {
        script: `${data} >> ${old}; sync ${old}; sha256sum < ${old}`,
        touches: [`${old}`],
        leaves: old,
      };
    case 3:
      return {
        script: `${data} | dd of=${old} conv=notrunc,fsync 2>/dev/null; sha256sum < ${old}`,
        touches: [`${old}`],
        leaves: old,
      };
    case 4:
      return { script: `${junk}rm ${old}; sync .`, touches: [`${old}`] };
    default:
      return create;
  }
}

/** How a run goes. */
export interface RunOptions extends PowerOptions {
  /** Steps. */
  readonly steps: number;
  /** Whether the guest takes every write to be durable, and does not flush. */
  readonly writeThrough?: boolean;
}

/** Has a guest make files on a new file system, as vda. */
export async function record(
  scope: Scope,
  guest: Guest,
  random: Random,
  options: RunOptions,
): Promise<RecordedRun> {
  const image = newImage(scope, 8 * MIB);
  // A journal so small that it comes round.
  await run("mkfs.ext4", ["-q", "-b", "1024", "-J", "size=1", image]);
  const storage = new PowerStorage(readFileSync(image), options);
  const served = await InProcess.serve(scope, new BlkDevice({ storage }));
  await guest.plug("vhost-user-blk-pci", served.socket);
  await guest.waitFor("[ -b /dev/vda ]");
  if (options.writeThrough === true) await guest.run("echo 'write through' >/sys/block/vda/cache_type");
  await guest.run("mount -t ext4 /dev/vda /mnt; sync -f /mnt");
  let files = new Map<string, string>();
  const marks: Mark[] = [];
  for (let i = 0; i < options.steps; i++) {
    const { script, touches, leaves } = step(random, [...files.keys()], `f${i}`);
    marks.push({ cut: storage.events.length, files, next: new Set(touches) });
    const said = await guest.run(`set -e; cd /mnt; ${script}`);
    files = new Map(files);
    for (const name of touches) files.delete(name);
    if (leaves !== undefined) files.set(leaves, said.slice(0, 64));
  }
  marks.push({ cut: storage.events.length, files, next: new Set() });
  await guest.run("umount /mnt");
  await guest.unplug();
  assert.deepEqual(served.problems, []);
  return new RecordedRun(storage, marks);
}

/**
 * Lets e2fsck recover a disk, as it does when a machine starts, and looks at the files.
 *
 * @throws when it could not be recovered without loss, or a file is not as it must be
 */
export async function checkRecovered(scope: Scope, bytes: Uint8Array, files: Files): Promise<void> {
  // In memory: e2fsck waits for its disk.
  const place = tempDir(scope, existsSync("/dev/shm") ? "/dev/shm" : undefined);
  const [image, folder] = [join(place, "image"), join(place, "files")];
  writeFileSync(image, bytes);
  mkdirSync(folder);
  // 1: it was recovered. More than the journal and what a mount corrects needs a person, and is 4.
  const { code, stdout } = await run("e2fsck", ["-f", "-p", image], { check: false });
  assert.ok(code <= 1, `e2fsck -p ended with ${code}: ${stdout}`);
  await run("e2fsck", ["-f", "-n", image]);
  await run("debugfs", ["-R", `rdump / ${folder}`, image]);
  for (const [name, sum] of files) {
    let found: string;
    try {
      found = sha256(join(folder, name));
    } catch {
      throw new Error(`${name} was synced, and is not there`);
    }
    assert.equal(found, sum, `the content of ${name}, which was synced`);
  }
  rmSync(image);
  rmSync(folder, { recursive: true });
}
