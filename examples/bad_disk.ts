/**
 * A disk with faults: every hundredth write fails, a part is slow, and another forgets what is written to it.
 *
 *     deno run --allow-ffi examples/bad_disk.ts
 *
 * and the socket is `/tmp/bad_disk.sock`. Rules are said as in `--fault` of every command (docs/faults.md): by kind of request,
 * by place, every so many or at random with a seed; they fail, delay, lose, shorten or change. Any device can have them.
 *
 * @module
 */

import { serve } from "@vhost/user";
import { BlkDevice, MemoryStorage } from "@vhost/user/devices/blk";
import { withFaults } from "@vhost/user/faults";

const disk = new BlkDevice({ storage: new MemoryStorage(64 * 2 ** 20) });
const bad = withFaults(disk, [
  "blk.write:every=100:error=EIO",
  "blk.read:sector=2048-4095:delay=50",
  "blk.write:sector=4096-6143:lose",
]);
await serve(bad, { socketPath: "/tmp/bad_disk.sock" });
