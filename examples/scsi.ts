/**
 * A SCSI host with one disk in memory, and a second that is plugged in and out every ten seconds.
 *
 *     deno run --allow-ffi examples/scsi.ts
 *
 * and the socket is `/tmp/scsi.sock`, for `-device vhost-user-scsi-pci`.
 *
 * @module
 */

import { serve } from "@vhost/user";
import { MemoryStorage, ScsiDevice } from "@vhost/user/devices/scsi";

const MIB = 2 ** 20;
const host = new ScsiDevice({ units: [{ storage: new MemoryStorage(64 * MIB), id: "system" }] });

setInterval(async () => {
  if (host.luns.includes(1)) await host.detach(1);
  else host.attach(1, { storage: new MemoryStorage(8 * MIB), id: "stick" });
}, 10_000);

await serve(host, { socketPath: "/tmp/scsi.sock" });
