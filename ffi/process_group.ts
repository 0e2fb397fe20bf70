/**
 * Processes that were started together.
 *
 * @module
 */

import { libc } from "./deno.ts";
import { check } from "./os_error.ts";

/** Numbers of signals, the same on x86-64 and aarch64. */
export const SignalNumber = { SIGTERM: 15, SIGKILL: 9 } as const;

/**
 * Sends a signal to all processes of a group. Deno's own `kill` wants leave to start any program.
 *
 * @param group its number: the id of the process that it was made for, above 1
 * @throws {OsError} ESRCH when there is none
 */
export function signalGroup(group: number, signal: number): void {
  if (!(group > 1)) throw new RangeError(`a process group has a number above 1, got ${group}`);
  check(libc.kill(-group, signal), "kill", `sending signal ${signal} to process group ${group}`);
}
