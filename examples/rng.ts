/**
 * An entropy device, whole.
 *
 *     deno run --allow-ffi examples/rng.ts
 *
 * and the socket is `/tmp/rng.sock`, for `-device vhost-user-rng-pci`.
 *
 * @module
 */

import { defineDevice, serve } from "@vhost/user";

const rng = defineDevice({
  type: 4,
  queues: [(chain) => chain.write((bytes) => crypto.getRandomValues(bytes))],
});

await serve(rng, { socketPath: "/tmp/rng.sock" });
