/**
 * Says SET_OWNER over and over, as fast as the socket takes it, until it is ended: `deno run --allow-ffi flood.ts PATH`.
 *
 * @module
 */

import process from "node:process";
import { libc } from "../../ffi/deno.ts";
import { setBlocking } from "../../ffi/fd.ts";
import { Native } from "../../ffi/native.ts";
import { connect } from "../../ffi/socket.ts";
import { messageBytes } from "./raw_peer.ts";
import { concat } from "./wire.ts";

const fd = connect(process.argv[2]);
setBlocking(fd);
const bytes = concat(...Array.from({ length: 4096 }, () => messageBytes("SET_OWNER")));
const all = new Native(bytes.length);
all.bytes.set(bytes);
console.log("flooding");
while (libc.write(fd, all.address, BigInt(bytes.length)) > 0);
