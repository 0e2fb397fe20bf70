/**
 * A device that does what its driver says: `[thread, what, argument]` as JSON, answered by the result. Arguments: the socket,
 * and what it keeps for itself ({@link Needs} as JSON) or `off`.
 */

import process from "node:process";
import { defineDevice, serve } from "../../mod.ts";
import { Confinement } from "../../ffi/confinement.ts";
import { attempt } from "./attempts.ts";

const [socketPath, needs] = process.argv.slice(2);
const older = new Worker(new URL("./older_thread.ts", import.meta.url), { type: "module" });
const heard = (): Promise<string> =>
  new Promise((resolve) => {
    older.onmessage = ({ data }) => resolve(data);
  });
await heard();

const device = defineDevice({
  type: 63,
  queues: [async (chain) => {
    const [thread, what, argument] = JSON.parse(new TextDecoder().decode(chain.read()));
    let result: string;
    if (thread === "main") {
      result = await attempt(what, argument);
    } else {
      const answer = heard();
      older.postMessage([what, argument]);
      result = await answer;
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
