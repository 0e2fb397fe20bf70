/**
 * An entropy device as a module, for `vhost-user run` and for its test. Of the page docs/writing-a-device.md.
 *
 *     deno run --allow-ffi --allow-read=examples/writing/rng.ts src/cli/mod.ts run examples/writing/rng.ts \
 *       --socket-path=/tmp/rng.sock
 *
 * @module
 */

import { defineDevice } from "@vhost/user";

export default defineDevice({
  type: 4,
  queues: [(chain) => chain.write((bytes) => crypto.getRandomValues(bytes))],
});
