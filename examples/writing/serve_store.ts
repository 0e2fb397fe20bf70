/**
 * Serves the key-value store of `store.ts`, which keeps its entries in a file. Of the page docs/writing-a-device.md.
 *
 *     deno run --allow-ffi --allow-read=/tmp/store.jsonl --allow-write=/tmp/store.jsonl examples/writing/serve_store.ts
 *
 * and the socket is `/tmp/store.sock`. Another socket and another file can follow.
 *
 * @module
 */

import { existsSync, readFileSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import process from "node:process";
import { serve } from "@vhost/user";
import { Store } from "./store.ts";

const [socketPath = "/tmp/store.sock", file = "/tmp/store.jsonl"] = process.argv.slice(2);

const store = new Store((key, value) => appendFile(file, `${JSON.stringify([key, value])}\n`));
for (const line of existsSync(file) ? readFileSync(file, "utf8").trim().split("\n") : []) {
  const [key, value] = JSON.parse(line);
  store.set(key, value);
}
await serve(store.device, { socketPath });
console.log(`a store on ${socketPath}`);
