/**
 * The command line on a kernel that lacks system calls: ENOSYS for each that is named first, with commas between. The rest is
 * for the command line.
 */

import process from "node:process";
import { libc } from "../../ffi/deno.ts";
import { Native } from "../../ffi/native.ts";
import { callNumber } from "../../ffi/system_calls.ts";
import { main } from "../../src/cli/mod.ts";

const [names, ...args] = process.argv.slice(2);
const RETURN = 0x06;
const ENOSYS = 0x0005_0026;
const program = [
  [0x20, 0, 0, 0],
  ...names.split(",").flatMap((name) => [[0x15, callNumber(name), 0, 1], [RETURN, ENOSYS, 0, 0]]),
  [RETURN, 0x7fff_0000, 0, 0],
];
const filter = new Native(8 * program.length);
program.forEach(([code, value, ifTrue, ifFalse], index) => {
  filter.view.setUint16(8 * index, code, true);
  filter.view.setUint8(8 * index + 2, ifTrue);
  filter.view.setUint8(8 * index + 3, ifFalse);
  filter.view.setUint32(8 * index + 4, value, true);
});
const header = new Native(16);
header.view.setUint16(0, program.length, true);
header.set64(8, filter.address);
libc.syscall(BigInt(callNumber("prctl")), 38n, 1n, 0n, 0n, 0n, 0n);
if (libc.syscall(BigInt(callNumber("seccomp")), 1n, 0n, header.address, 0n, 0n, 0n) !== 0) {
  throw new Error("this kernel has no seccomp filters to try this with");
}
process.exit(await main(args));
