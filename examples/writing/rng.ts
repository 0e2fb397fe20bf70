import { defineDevice } from "@vhost/user";

export default defineDevice({
  type: 4,
  queues: [(chain) => chain.write((bytes) => crypto.getRandomValues(bytes))],
});
