/**
 * eventfd: the doorbell between processes.
 *
 * @module
 */

import { errno, libc } from "./deno.ts";
import { check, Errno } from "./os_error.ts";
import { Native } from "./native.ts";
import { Piece, readNow } from "./now.ts";

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

const one = new Native(8);
one.set64(0, 1n);
const counter = new Piece(new Native(8));

/**
 * A new eventfd, non-blocking and closed on exec. The caller owns it.
 *
 * @throws {OsError}
 */
export function eventfd(): number {
  return check(libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd", "creating an event");
}

/**
 * Rings: adds 1. A counter that is full (the peer does not read it) is left as it is; it rings already.
 * A peer may pass a pipe or a closed socket instead of an eventfd, so no error is thrown: false says
 * that nobody can hear it.
 */
export function signal(fd: number): boolean {
  return libc.write(fd, one.address, 8n) >= 0 || errno() === Errno.EAGAIN;
}

/**
 * Takes the pending rings. Never waits, even if whoever holds the other end has taken them first and has made the
 * descriptor a blocking one.
 *
 * @returns `"rung"`, `"quiet"` when there were none, or `"gone"` when there can be no more: the end of a
 *   pipe, a descriptor that cannot be read
 */
export function consume(fd: number): "rung" | "quiet" | "gone" {
  const n = readNow(fd, counter);
  if (n > 0) return "rung";
  if (n === 0) return "gone";
  const number = errno();
  return number === Errno.EAGAIN || number === Errno.EINTR ? "quiet" : "gone";
}
