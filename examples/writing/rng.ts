import { defineDevice, serve } from "@vhost/user";

const rng = defineDevice({
  type: 4,
  queues: [(chain) => chain.write((bytes) => crypto.getRandomValues(bytes))],
});

export default rng;

if (import.meta.main) await serve(rng, { socketPath: "/tmp/rng.sock" });
