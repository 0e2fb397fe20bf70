// A disk that fails every hundredth write, takes its time over one part, and forgets what is written to another.
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
