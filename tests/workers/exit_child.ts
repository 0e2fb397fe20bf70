import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { serve } from "../../mod.ts";
import { FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";

// Serves a device in threads, with a front-end that has started its rings, and ends while the threads wait for what the
// front-end does next: in the kernel, or in their event loops.

const [module, how, socketPath] = process.argv.slice(2);
const device = new URL(`./devices/${module}.ts`, import.meta.url);
await serve(device, { socketPath, workers: 2, deviceOptions: module === "counter" ? { first: 1 } : {} });
const frontEnd = await FrontEnd.connect(socketPath);
const memory = new SharedMemory(1 << 16);
await frontEnd.shareMemory(memory);
for (const index of [0, 1]) await frontEnd.startQueue(index, memory, { size: 8 });
await sleep(200);
if (how === "exit") process.exit(7);
setTimeout(() => {
  throw new Error("nobody catches this");
}, 0);
