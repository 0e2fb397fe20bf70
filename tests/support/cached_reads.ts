import { unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { close } from "../../ffi/fd.ts";
import { openFile, OpenFlag, readCached } from "../../ffi/file.ts";
import { Iovec } from "../../ffi/iovec.ts";
import { Native } from "../../ffi/native.ts";

/** Whether the file system of a folder can say what is in the page cache: overlayfs, for one, cannot. */
export function readsCached(folder: string): boolean {
  const path = join(folder, "cached-reads");
  writeFileSync(path, new Uint8Array(1));
  const fd = openFile(path, OpenFlag.READ_ONLY);
  try {
    const memory = new Native(1);
    const iovec = new Iovec(1);
    iovec.push(Number(memory.address), 1);
    return readCached(fd, iovec, 0) !== undefined;
  } finally {
    close(fd);
    unlinkSync(path);
  }
}
