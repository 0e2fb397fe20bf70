import { openFile, OpenFlag } from "../../ffi/file.ts";
import { close } from "../../ffi/fd.ts";
import { libc } from "../../ffi/deno.ts";
import { Native } from "../../ffi/native.ts";
import { peerCredentials } from "../../ffi/socket.ts";
import { type PeerProgram, programOf } from "./programs.ts";

// Everything here goes through libc: a back-end under test has --allow-ffi and nothing else, and keeps it that way.

const O_WRONLY = 1;
const O_APPEND = 0o2000;

const room = new Native(1 << 16);

function readAll(path: string): string {
  const fd = openFile(path, OpenFlag.READ_ONLY);
  try {
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const length = Number(libc.read(fd, room.address, BigInt(room.bytes.length)));
      if (length <= 0) return text;
      text += decoder.decode(room.bytes.subarray(0, length), { stream: true });
    }
  } finally {
    close(fd);
  }
}

/** Adds a line to a file, which many processes may do at once. Holds no descriptor afterwards. */
export function appendLine(path: string, line: string): void {
  const bytes = new TextEncoder().encode(`${line}\n`);
  const native = new Native(bytes.length);
  native.bytes.set(bytes);
  const fd = openFile(path, OpenFlag.CREATE | O_WRONLY | O_APPEND, 0o644);
  try {
    const written = Number(libc.write(fd, native.address, BigInt(bytes.length)));
    if (written !== bytes.length) {
      throw new Error(`${path}: ${written} of ${bytes.length} bytes were written`);
    }
  } finally {
    close(fd);
  }
}

/** The program that a process runs, or `undefined`. */
function executable(pid: number): string | undefined {
  const link = Native.string(`/proc/${pid}/exe`);
  const length = Number(libc.readlink(link.address, room.address, BigInt(room.bytes.length)));
  return length <= 0 ? undefined : new TextDecoder().decode(room.bytes.subarray(0, length));
}

/** Every file that is mapped in a process. */
function mappedFiles(pid: number): string[] {
  return readAll(`/proc/${pid}/maps`).split("\n").flatMap((line) => /(\/.*)$/.exec(line)?.[1] ?? []);
}

/**
 * The program at the other end of a Unix socket, as the kernel knows it.
 *
 * @returns `undefined` when that cannot be known: it has ended, or the tracer is in between
 */
export function programAt(fd: number): PeerProgram | undefined {
  try {
    const { pid } = peerCredentials(fd);
    if (pid === process.pid) return { name: "ours" };
    const program = pid > 0 ? executable(pid) : undefined;
    if (program === undefined) return undefined;
    if (program === executable(process.pid)) {
      const tracer = readAll(`/proc/${pid}/cmdline`).split("\0").includes("trace");
      return tracer ? undefined : { name: "ours" };
    }
    return programOf([program, ...mappedFiles(pid)]);
  } catch {
    return undefined;
  }
}
