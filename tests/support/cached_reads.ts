import { unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { errno, libc } from "../../ffi/deno.ts";
import { close } from "../../ffi/fd.ts";
import { openFile, OpenFlag, RWF_NOWAIT } from "../../ffi/file.ts";
import { Iovec } from "../../ffi/iovec.ts";
import { Native } from "../../ffi/native.ts";
import { Errno } from "../../ffi/os_error.ts";

/** Whether the file system of a folder can say what is in the page cache: overlayfs, for one, cannot. */
export function readsCached(folder: string): boolean {
  const path = join(folder, "cached-reads");
  writeFileSync(path, new Uint8Array(4096));
  const fd = openFile(path, OpenFlag.READ_ONLY);
  try {
    const memory = new Native(1);
    const iovec = new Iovec(1);
    iovec.push(Number(memory.address), 1);
    return libc.preadv2(fd, iovec.address, 1, 0n, RWF_NOWAIT) >= 0 || errno() !== Errno.EOPNOTSUPP;
  } finally {
    close(fd);
    unlinkSync(path);
  }
}
