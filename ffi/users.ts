/**
 * The users of this machine.
 *
 * @module
 */

import { bufferAt, libc } from "./deno.ts";
import { littleEndian, Native } from "./native.ts";

/** Bytes of struct passwd that are looked at: the addresses of name and password, the user id. */
const USED = 20;
const UID = 16;

/** The id of a user by name, as the C library finds it (`getpwnam(3)`); `undefined` when there is none. */
export function userIdOf(name: string): number | undefined {
  const entry = libc.getpwnam(Native.string(name).address);
  return entry === 0n ? undefined : new DataView(bufferAt(entry, USED)).getUint32(UID, littleEndian);
}
