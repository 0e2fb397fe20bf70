import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { eventfd } from "../../ffi/eventfd.ts";
import { close } from "../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { listen, socketPair } from "../../ffi/socket.ts";
import { onEnd, type Scope, tempDir } from "./cleanup.ts";

/** One descriptor of each kind, open until the test is over. */
export function oddDescriptors(scope: Scope): Readonly<Record<string, number>> {
  const folder = tempDir(scope);
  const fifo = join(folder, "fifo");
  execFileSync("mkfifo", [fifo]);
  const whole = openFile(fifo, OpenFlag.READ_WRITE);
  const readEnd = openFile(fifo, OpenFlag.READ_ONLY);
  const writeEnd = openFile(fifo, 1);
  const file = openFile(join(folder, "file"), OpenFlag.READ_WRITE | OpenFlag.CREATE);
  const [left, right] = socketPair();
  const [alone, gone] = socketPair();
  close(gone);
  const fds = {
    "a regular file": file,
    "a directory": openFile(folder, OpenFlag.READ_ONLY),
    "a path": openFile(folder, OpenFlag.PATH_ONLY),
    "a memory file": memoryFile("odd", 8192),
    "an empty memory file": memoryFile("odd", 0),
    "a listening socket": listen(join(folder, "listening")),
    "a connected socket": left,
    "a socket whose peer has gone": alone,
    "a pipe": whole,
    "the read end of a pipe": readEnd,
    "the write end of a pipe": writeEnd,
    "a null device": openFile("/dev/null", OpenFlag.READ_WRITE),
    "an event": eventfd(),
  };
  onEnd(scope, () => [...Object.values(fds), right].forEach(close));
  return fds;
}
