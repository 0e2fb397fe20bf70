import { statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { BlkDevice, FileStorage } from "../../src/devices/blk/mod.ts";
import { onEnd, type Scope, tempDir } from "./cleanup.ts";
import type { Guest } from "./guest.ts";
import { InProcess } from "./in_process.ts";
import { root } from "./our_backend.ts";
import { peerPath } from "./peers.ts";
import { run } from "./process.ts";

/** Where the disk with the program goes, away from what a test plugs. */
const SLOT = 3;

/**
 * Compiles a program of `tests/real` for the guest and puts it there, by a disk of ours.
 *
 * @param name of the source, without `.c`
 * @returns its path in the guest
 */
export async function installProgram(scope: Scope, guest: Guest, name: string): Promise<string> {
  const file = join(tempDir(scope), name);
  await run(peerPath("cc"), [
    "-static",
    "-O1",
    "-s",
    "-Wall",
    "-Werror",
    "-o",
    file,
    join(root, `tests/real/${name}.c`),
  ]);
  truncateSync(file, Math.ceil(statSync(file).size / 512) * 512);
  const storage = new FileStorage(file, { readOnly: true });
  onEnd(scope, () => storage.close());
  const disk = await InProcess.serve(scope, new BlkDevice({ storage }));
  await guest.plug("vhost-user-blk-pci", disk.socket, { id: "program", slot: SLOT });
  await guest.waitFor("[ -b /dev/vda ]");
  await guest.run(`cp /dev/vda /tmp/${name} && chmod +x /tmp/${name}`);
  await guest.unplug("program");
  return `/tmp/${name}`;
}
