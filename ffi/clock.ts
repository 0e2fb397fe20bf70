/**
 * The clocks of this machine.
 *
 * @module
 */

import { libc } from "./deno.ts";
import { Native } from "./native.ts";
import { check } from "./os_error.ts";

/** Numbers of clocks (`clock_gettime(2)`). */
export const ClockId = { REALTIME: 0, MONOTONIC: 1 } as const;

const time = new Native(16);

/**
 * What a clock shows, nanoseconds.
 *
 * @param clock of {@link ClockId}
 */
export function clockTime(clock: number): bigint {
  check(libc.clock_gettime(clock, time.address), "clock_gettime", "reading a clock");
  return time.get64(0) * 1_000_000_000n + time.get64(8);
}
