import { libc } from "../../ffi/deno.ts";
import { check } from "../../ffi/os_error.ts";
import { Native } from "../../ffi/native.ts";

/** The two ends of a new pipe: to read from, to write to. */
export function pipe(): [read: number, write: number] {
  const ends = new Native(8);
  check(libc.pipe2(ends.address, 0o2000000), "pipe2", "making a pipe");
  return [ends.get32(0), ends.get32(4)];
}
