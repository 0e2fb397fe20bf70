import { setTimeout as sleep } from "node:timers/promises";
import type { Guest } from "./guest.ts";
import { MIB } from "./image.ts";

/** Moves a guest by way of a Unix socket, and waits until it runs at the other end. */
export async function migrate(from: Guest, to: Guest, socket: string, postcopy = false): Promise<void> {
  if (postcopy) {
    const capabilities = [{ capability: "postcopy-ram", state: true }];
    for (const guest of [from, to]) await guest.qmp("migrate-set-capabilities", { capabilities });
    // So slow that the first pass cannot end before the switch.
    await from.qmp("migrate-set-parameters", { "max-bandwidth": 8 * MIB });
  }
  await to.qmp("migrate-incoming", { uri: `unix:${socket}` });
  await from.qmp("migrate", { uri: `unix:${socket}` });
  if (postcopy) {
    await sleep(500);
    await from.qmp("migrate-start-postcopy");
    await from.qmp("migrate-set-parameters", { "max-postcopy-bandwidth": 0 });
  }
  await from.waitStatus("completed", "query-migrate", 30_000);
  await to.waitStatus("running");
}
