/**
 * Files and block devices, read and written by address.
 *
 * @module
 */

import { arch, errno, libc } from "./deno.ts";
import { check, Errno, OsError } from "./os_error.ts";
import type { Iovec } from "./iovec.ts";
import { littleEndian, Native } from "./native.ts";

const O_CLOEXEC = 0o2000000;

/** Flags of `open(2)`; O_DIRECT is one of the few that differ between processors. */
export const OpenFlag = {
  READ_ONLY: 0,
  WRITE_ONLY: 1,
  READ_WRITE: 2,
  NO_TERMINAL: 0o400,
  CREATE: 0o100,
  EXCLUSIVE: 0o200,
  TRUNCATE: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  PATH_ONLY: 0o10000000,
  DIRECT: arch === "x86_64" ? 0o40000 : 0o200000,
} as const;

/** Modes of `fallocate(2)`. */
export const FallocateMode = { KEEP_SIZE: 1, PUNCH_HOLE: 2, ZERO_RANGE: 0x10 } as const;

const TWO_32 = 0x1_0000_0000;
const [LOW, HIGH] = littleEndian ? [0, 1] : [1, 0];
const offsetCell = new BigInt64Array(1);
const offsetHalves = new Uint32Array(offsetCell.buffer);

/** A position as the engine passes it to C without making an object, which `BigInt()` does. */
function offset(position: number): bigint {
  const high = Math.floor(position / TWO_32);
  offsetHalves[LOW] = position - high * TWO_32;
  offsetHalves[HIGH] = high;
  return offsetCell[0];
}

/**
 * Opens a file, closed on exec. The caller owns the descriptor.
 *
 * @param flags of {@link OpenFlag}
 * @param mode permission bits of a file that is created
 * @throws {OsError}
 */
export function openFile(path: string, flags: number, mode = 0o600): number {
  const native = Native.string(path);
  for (;;) {
    const fd = libc.open(native.address, flags | O_CLOEXEC, mode);
    if (fd >= 0) return fd;
    const number = errno();
    if (number !== Errno.EINTR) throw new OsError("open", number, `opening ${path}`);
  }
}

/**
 * Removes a file name; one that is not there is not an error.
 *
 * @throws {OsError}
 */
export function removeFile(path: string): void {
  if (libc.unlink(Native.string(path).address) < 0) {
    const number = errno();
    if (number !== Errno.ENOENT) throw new OsError("unlink", number, `removing ${path}`);
  }
}

/**
 * Reads into every piece of the list, over short reads. At the end of the file the rest is left as it is.
 *
 * @param position bytes from the start of the file
 * @returns bytes read, fewer than asked only at the end of the file
 * @throws {OsError}
 */
export function readAt(fd: number, iovec: Iovec, position: number): number {
  const wanted = iovec.byteLength;
  let done = libc.preadv(fd, iovec.address, iovec.count, offset(position));
  if (done === wanted) return done;
  for (;;) {
    if (done < 0) {
      const number = errno();
      if (number !== Errno.EINTR) {
        throw new OsError("preadv", number, `reading ${wanted} bytes at ${position}`);
      }
    } else if (done === 0) {
      return wanted - iovec.byteLength;
    } else {
      iovec.advance(done);
      if (iovec.byteLength === 0) return wanted;
    }
    const next = position + wanted - iovec.byteLength;
    done = libc.preadv(fd, iovec.address, iovec.count, offset(next));
  }
}

/** `preadv2(2)`: fails with EAGAIN where it would wait. */
export const RWF_NOWAIT = 8;

/**
 * Reads into every piece of the list, if all of that is in the page cache.
 *
 * @param position bytes from the start of the file
 * @returns false when it is not, and at the end of the file: some bytes may have been read; `undefined` where the file system
 * cannot say, as overlayfs
 */
export function readCached(fd: number, iovec: Iovec, position: number): boolean | undefined {
  const n = libc.preadv2(fd, iovec.address, iovec.count, offset(position), RWF_NOWAIT);
  if (n === iovec.byteLength) return true;
  return n < 0 && errno() === Errno.EOPNOTSUPP ? undefined : false;
}

/**
 * Writes every piece of the list, over short writes.
 *
 * @param position bytes from the start of the file
 * @throws {OsError} ENOSPC, EIO, …; some bytes may have been written
 */
export function writeAt(fd: number, iovec: Iovec, position: number): void {
  const wanted = iovec.byteLength;
  let done = libc.pwritev(fd, iovec.address, iovec.count, offset(position));
  if (done === wanted) return;
  for (;;) {
    if (done < 0) {
      const number = errno();
      if (number !== Errno.EINTR) {
        throw new OsError("pwritev", number, `writing ${wanted} bytes at ${position}`);
      }
    } else {
      iovec.advance(done);
      if (iovec.byteLength === 0) return;
    }
    const next = position + wanted - iovec.byteLength;
    done = libc.pwritev(fd, iovec.address, iovec.count, offset(next));
  }
}

/**
 * Waits until what was written survives a loss of power.
 *
 * @throws {OsError}
 */
export function syncData(fd: number): void {
  check(libc.fdatasync(fd), "fdatasync", () => `flushing descriptor ${fd}`);
}

/**
 * Changes how a range of a file is stored.
 *
 * @param mode of {@link FallocateMode}
 * @returns false when the file system cannot do it
 * @throws {OsError} for any other failure
 */
export function allocate(fd: number, mode: number, position: number, length: number): boolean {
  for (;;) {
    if (libc.fallocate(fd, mode, BigInt(position), BigInt(length)) === 0) return true;
    const number = errno();
    if (number === Errno.EOPNOTSUPP) return false;
    if (number !== Errno.EINTR) {
      throw new OsError("fallocate", number, `changing ${length} bytes at ${position}`);
    }
  }
}

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** `struct flock` of 64-bit Linux. */
const lock = new Native(32);
const LOCK_TYPE = 0;
const LOCK_START = 8;
const LOCK_LENGTH = 16;

function setLock(type: number, position: number, length: number): void {
  lock.bytes.fill(0);
  lock.view.setInt16(LOCK_TYPE, type, littleEndian);
  lock.set64(LOCK_START, BigInt(position));
  lock.set64(LOCK_LENGTH, BigInt(length));
}

/**
 * Marks one byte of a file, which need not exist, by a shared lock of the open file (`fcntl(2)`, "Open file description
 * locks"). The mark stays until nobody has the open file any more: no descriptor, and no request of io_uring.
 *
 * @returns false where the file system has no locks
 */
export function markByte(fd: number, position: number): boolean {
  setLock(F_RDLCK, position, 1);
  return libc.fcntl(fd, F_OFD_SETLK, lock.address) === 0;
}

/**
 * Looks for marks of other open files.
 *
 * @returns the position of one, which need not be the first; `null` when there is none
 */
export function markedByte(fd: number, position: number, length: number): number | null {
  setLock(F_WRLCK, position, length);
  if (libc.fcntl(fd, F_OFD_GETLK, lock.address) !== 0) return null;
  if (lock.view.getInt16(LOCK_TYPE, littleEndian) === F_UNLCK) return null;
  return Math.max(position, Number(lock.get64(LOCK_START)));
}
