/**
 * A disk in memory, as a module for `vhost-user run`: with options of its own, and made anew when the file changes.
 *
 *     deno run --allow-ffi --allow-read=examples/scratch_disk.ts src/cli/mod.ts run examples/scratch_disk.ts \
 *       --socket-path=/tmp/scratch_disk.sock --option mib=128 --option id=mine
 *
 * and the socket is `/tmp/scratch_disk.sock`. With `--watch` besides, changes are served as they are saved (docs/run.md).
 *
 * @module
 */

import { BlkDevice, MemoryStorage } from "@vhost/user/devices/blk";

/** What `--option` says. */
interface ScratchOptions {
  /** Size of the disk, MiB. */
  mib?: number;
  /** Serial number that the guest reads. */
  id?: string;
}

export default ({ mib = 64, id = "scratch" }: ScratchOptions): BlkDevice =>
  new BlkDevice({ storage: new MemoryStorage(mib * 2 ** 20), id });
