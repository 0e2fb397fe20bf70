/**
 * eventfd: the doorbell between processes.
 *
 * @module
 */

import { errno, libc } from "./deno.ts";
import { check, Errno } from "./os_error.ts";
import { Native } from "./native.ts";

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

const one = new Native(8);
one.set64(0, 1n);
const counter = new Native(8);

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
 * Takes the pending rings. The descriptor should be non-blocking: whoever holds the other end could take
 * them first, and the read would wait.
 *
 * @returns `"rung"`, `"quiet"` when there were none, or `"gone"` when there can be no more: the end of a
 *   pipe, a descriptor that cannot be read
 */
export function consume(fd: number): "rung" | "quiet" | "gone" {
  const n = libc.read(fd, counter.address, 8n);
  if (n > 0) return "rung";
  if (n === 0) return "gone";
  const number = errno();
  return number === Errno.EAGAIN || number === Errno.EINTR ? "quiet" : "gone";
}
