// A disk in memory, for: vhost-user run examples/scratch_disk.ts --socket-path=/tmp/scratch.sock --option mib=128 --watch
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
