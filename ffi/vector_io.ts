/**
 * Reading and writing several pieces of memory in one call, on descriptors that have no position: sockets, TAP devices.
 *
 * @module
 */

import { errno, libc } from "./deno.ts";
import type { Iovec } from "./iovec.ts";
import { Errno, OsError } from "./os_error.ts";

/**
 * Reads into the pieces of the list.
 *
 * @returns bytes read, 0 at the end of a stream, -1 when a non-blocking descriptor has none yet
 * @throws {OsError}
 */
export function readPieces(fd: number, iovec: Iovec): number {
  for (;;) {
    const n = libc.readv(fd, iovec.address, iovec.count);
    if (n >= 0) return n;
    const number = errno();
    if (number === Errno.EAGAIN) return -1;
    if (number !== Errno.EINTR) throw new OsError("readv", number, `reading descriptor ${fd}`);
  }
}

/**
 * Writes the pieces of the list.
 *
 * @returns bytes written, or -1 when a non-blocking descriptor takes none yet
 * @throws {OsError} EPIPE when nobody reads any more
 */
export function writePieces(fd: number, iovec: Iovec): number {
  for (;;) {
    const n = libc.writev(fd, iovec.address, iovec.count);
    if (n >= 0) return n;
    const number = errno();
    if (number === Errno.EAGAIN) return -1;
    if (number !== Errno.EINTR) throw new OsError("writev", number, `writing descriptor ${fd}`);
  }
}
