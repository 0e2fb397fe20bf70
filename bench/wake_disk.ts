/**
 * A disk that says when it began with a read: its first 8 bytes are then the nanoseconds of CLOCK_MONOTONIC. Started by
 * `wake.ts`, with a socket and `sync` or `async`.
 */

import process from "node:process";
import { type Device, serve, type Span } from "../mod.ts";
import { BlkDevice, type Storage } from "../src/devices/blk/mod.ts";

const CLOCK_MONOTONIC = 1;

const { symbols: { clock_gettime } } = Deno.dlopen("libc.so.6", {
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
});
const time = new BigInt64Array(2);
const stamp = new BigInt64Array(1);
const stampBytes = new Uint8Array(stamp.buffer);

function begin(data: Span): void {
  clock_gettime(CLOCK_MONOTONIC, time);
  stamp[0] = time[0] * 1_000_000_000n + time[1];
  data.copyFrom(stampBytes);
}

const [socketPath, how] = process.argv.slice(2);
const storage: Storage = {
  size: 1 << 20,
  readOnly: false,
  // deno-lint-ignore require-await
  read: how === "async" ? async (data) => begin(data) : begin,
  write: () => {},
  flush: () => {},
  close: () => {},
};
const device: Device = new BlkDevice({ storage });
const server = await serve(device, { socketPath });
process.on("SIGTERM", () => server.close());
await server.finished;
