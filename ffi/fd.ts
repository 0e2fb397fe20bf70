/**
 * What can be done with any file descriptor, and who owns one.
 *
 * @module
 */

import { errno, libc } from "./deno.ts";
import { check, Errno, OsError } from "./os_error.ts";
import { Native } from "./native.ts";
import { Piece, readNow, writeNow } from "./now.ts";

const F_DUPFD_CLOEXEC = 1030;
const F_GETFD = 1;
const F_GETFL = 3;
const F_SETFL = 4;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const O_NONBLOCK = 0o4000;

/** Seals of a memory file (`fcntl(2)`, F_ADD_SEALS). */
export const Seal = { SEAL: 1, SHRINK: 2, GROW: 4, WRITE: 8 } as const;

/** Closes a descriptor. Errors of `close` are not reported: the descriptor is gone either way. */
export function close(fd: number): void {
  libc.close(fd);
}

/**
 * A second descriptor for the same open file, closed on exec; the caller owns it.
 *
 * @throws {OsError}
 */
export function duplicate(fd: number): number {
  return check(libc.fcntl(fd, F_DUPFD_CLOEXEC, 3n), "fcntl", () => `duplicating descriptor ${fd}`);
}

/** Whether the number names an open descriptor of this process. */
export function isOpen(fd: number): boolean {
  return libc.fcntl(fd, F_GETFD, 0n) >= 0;
}

/**
 * Whether reads and writes return at once instead of waiting.
 *
 * @throws {OsError}
 */
export function isNonblocking(fd: number): boolean {
  return (check(libc.fcntl(fd, F_GETFL, 0n), "fcntl", () => `asking descriptor ${fd}`) & O_NONBLOCK) !== 0;
}

/**
 * Makes reads and writes return at once instead of waiting; or wait, when `nonblocking` is false. Holds for everyone who
 * has the same open file.
 *
 * @throws {OsError}
 */
export function setNonblocking(fd: number, nonblocking = true): void {
  if (isNonblocking(fd) === nonblocking) return;
  const what = () => `making descriptor ${fd} ${nonblocking ? "non-" : ""}blocking`;
  const flags = check(libc.fcntl(fd, F_GETFL, 0n), "fcntl", what);
  check(libc.fcntl(fd, F_SETFL, BigInt(flags ^ O_NONBLOCK)), "fcntl", what);
}

/**
 * Makes reads and writes wait, for a descriptor that goes to somebody who expects that.
 *
 * @throws {OsError}
 */
export function setBlocking(fd: number): void {
  const what = () => `making descriptor ${fd} blocking`;
  const flags = check(libc.fcntl(fd, F_GETFL, 0n), "fcntl", what);
  check(libc.fcntl(fd, F_SETFL, BigInt(flags & ~O_NONBLOCK)), "fcntl", what);
}

/**
 * Adds seals to a memory file, such as {@link Seal}.SHRINK, which promises that mapped pages stay.
 *
 * @throws {OsError}
 */
export function addSeals(fd: number, seals: number): void {
  check(libc.fcntl(fd, F_ADD_SEALS, BigInt(seals)), "fcntl", () => `sealing memory file ${fd}`);
}

/** The seals of a memory file, or 0 for a file that cannot be sealed. */
export function getSeals(fd: number): number {
  return Math.max(0, libc.fcntl(fd, F_GET_SEALS, 0n));
}

const STATX_BASIC = 0x7ff;
const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const emptyPath = Native.string("");
// struct statx has one layout on every architecture, which struct stat has not.
const statxBuffer = new Native(256);

/** What kind of thing a descriptor is. */
export type FileKind =
  | "file"
  | "block device"
  | "character device"
  | "socket"
  | "pipe"
  | "directory"
  | "other";

/** What a descriptor refers to. */
export interface FileStatus {
  /** Kind, from the file mode; anonymous inodes (eventfd, epoll) are `"other"`. */
  readonly kind: FileKind;
  /** Permission bits. */
  readonly mode: number;
  /** Bytes. 0 for a block device: ask {@link blockDeviceSize}. */
  readonly size: number;
  /** Preferred I/O size, bytes: the page size, or the huge page size on hugetlbfs. */
  readonly blockSize: number;
  /** Inode number. */
  readonly inode: bigint;
  /** Device that holds the inode, major << 32 | minor. */
  readonly device: bigint;
  /** Owner. */
  readonly uid: number;
}

const KINDS: Readonly<Record<number, FileKind>> = {
  0o010000: "pipe",
  0o020000: "character device",
  0o040000: "directory",
  0o060000: "block device",
  0o100000: "file",
  0o140000: "socket",
};

/**
 * `fstat`.
 *
 * @throws {OsError}
 */
export function fileStatus(fd: number): FileStatus {
  return status(fd, emptyPath, AT_EMPTY_PATH, () => `looking at descriptor ${fd}`);
}

/**
 * `stat` of a path, links followed.
 *
 * @throws {OsError} ENOENT when there is nothing
 */
export function pathStatus(path: string): FileStatus {
  return status(AT_FDCWD, Native.string(path), 0, () => `looking at ${path}`);
}

function status(directory: number, path: Native, flags: number, attempted: () => string): FileStatus {
  check(
    libc.statx(directory, path.address, flags, STATX_BASIC, statxBuffer.address),
    "statx",
    attempted,
  );
  const mode = statxBuffer.view.getUint16(28, true);
  return {
    kind: KINDS[mode & 0o170000] ?? "other",
    mode: mode & 0o7777,
    size: Number(statxBuffer.get64(40)),
    blockSize: statxBuffer.get32(4),
    inode: statxBuffer.get64(32),
    device: (BigInt(statxBuffer.get32(136) >>> 0) << 32n) | BigInt(statxBuffer.get32(140) >>> 0),
    uid: statxBuffer.get32(20) >>> 0,
  };
}

const linkText = new Native(4096);

/**
 * What the kernel calls the thing that a descriptor refers to: a path (with ` (deleted)` once it has none),
 * `/memfd:name (deleted)`, `anon_inode:[eventfd]`, `socket:[number]`.
 *
 * @throws {OsError} EBADF for a closed one, ENOENT where there is no `/proc`
 */
export function linkTarget(fd: number): string {
  const link = Native.string(`/proc/self/fd/${fd}`);
  const length = check(
    libc.readlink(link.address, linkText.address, 4096n),
    "readlink",
    () => `looking at descriptor ${fd}`,
  );
  return new TextDecoder().decode(linkText.bytes.subarray(0, length));
}

const BLKGETSIZE64 = 0x80081272n;

/**
 * Bytes of a block device.
 *
 * @throws {OsError}
 */
export function blockDeviceSize(fd: number): number {
  check(libc.ioctl(fd, BLKGETSIZE64, statxBuffer.address), "ioctl", "asking a block device's size");
  return Number(statxBuffer.get64(0));
}

const transfer = new Native(4096);
const transferred = new Piece(transfer);

/**
 * Reads at most `maximum` bytes (4096 at the most).
 *
 * @param patient false never waits, even if whoever has given the descriptor has made it a blocking one
 * @returns the bytes (empty at the end of the file), or `null` when a non-blocking descriptor has none yet
 * @throws {OsError}
 */
export function readBytes(fd: number, maximum = 4096, patient = true): Uint8Array<ArrayBuffer> | null {
  transferred.byteLength = Math.min(maximum, 4096);
  for (;;) {
    const n = patient ? libc.readv(fd, transferred.address, 1) : readNow(fd, transferred);
    if (n >= 0) return transfer.bytes.slice(0, n);
    const number = errno();
    if (number === Errno.EAGAIN) return null;
    if (number !== Errno.EINTR) throw new OsError("read", number, `reading descriptor ${fd}`);
  }
}

/**
 * Writes bytes, 4096 at the most.
 *
 * @param patient false never waits, even if whoever has given the descriptor has made it a blocking one
 * @returns how many were written, or `null` when a non-blocking descriptor takes none yet
 * @throws {OsError} EPIPE when nobody reads any more
 */
export function writeBytes(fd: number, source: Uint8Array, patient = true): number | null {
  transferred.byteLength = Math.min(source.length, 4096);
  transfer.bytes.set(source.subarray(0, transferred.byteLength));
  for (;;) {
    const n = patient ? libc.writev(fd, transferred.address, 1) : writeNow(fd, transferred);
    if (n >= 0) return n;
    const number = errno();
    if (number === Errno.EAGAIN) return null;
    if (number !== Errno.EINTR) throw new OsError("write", number, `writing descriptor ${fd}`);
  }
}

/**
 * Descriptors that came with a message. Whoever wants one takes it and owns it from then on; `close`
 * closes what nobody took, so that no path through a handler leaks.
 */
export class DescriptorBag {
  #fds: number[];

  /** Takes over descriptors. */
  constructor(fds: readonly number[] = []) {
    this.#fds = [...fds];
  }

  /** How many nobody has taken yet. */
  get length(): number {
    return this.#fds.length;
  }

  /** All that are left, without taking them. */
  list(): readonly number[] {
    return this.#fds;
  }

  /** Takes over what another bag owns. */
  append(other: DescriptorBag): void {
    this.#fds.push(...other.takeAll());
  }

  /** Hands the first one over, or `undefined` when none is left. The caller must close it. */
  take(): number | undefined {
    return this.#fds.shift();
  }

  /** Hands all over. The caller must close them. */
  takeAll(): number[] {
    return this.#fds.splice(0);
  }

  /** Closes the rest. */
  close(): void {
    for (const fd of this.#fds.splice(0)) close(fd);
  }
}
