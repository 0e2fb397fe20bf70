/**
 * A device that does what its driver says: `[thread, what, argument]` as JSON, answered by the result. Arguments: the socket,
 * and what it keeps for itself ({@link Needs} as JSON) or `off`.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { defineDevice, serve } from "../../mod.ts";
import { Confinement } from "../../ffi/confinement.ts";
import { TestThread } from "../support/thread.ts";
import { attempt } from "./attempts.ts";

const [socketPath, needs] = process.argv.slice(2);
const older = new TestThread(new URL("./older_thread.ts", import.meta.url));
assert.equal(await older.next(), "up");

const device = defineDevice({
  type: 63,
  queues: [async (chain) => {
    const [thread, what, argument] = JSON.parse(new TextDecoder().decode(chain.read()));
    let result: string;
    if (thread === "main") {
      result = await attempt(what, argument);
    } else {
      older.post([what, argument]);
      result = String(await older.next());
    }
    chain.write(new TextEncoder().encode(result));
  }],
});
const server = await serve(device, { socketPath });
if (needs !== "off") console.log(JSON.stringify(await new Confinement(JSON.parse(needs)).enter()));
console.log("ready");
process.on("SIGTERM", () => server.close());
await server.finished;
process.exit(0);
