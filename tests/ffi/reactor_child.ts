// What reactor_exit_test.ts runs as a process of its own. Says "ready" once the doorbell has been heard, and then stops
// to listen, "at once" or "later", or "never"; "prepared", when it was ready to listen and is not any more.

import process from "node:process";
import { consume, eventfd, signal } from "../../ffi/eventfd.ts";
import { Reactor } from "../../ffi/reactor.ts";

const when = process.argv[2];
const reactor = Reactor.shared();
if (when === "prepared") {
  await reactor.prepare();
  process.stdout.write("ready\n");
  await reactor.release();
} else {
  const fd = eventfd();
  reactor.watch(fd, () => {
    consume(fd);
    process.stdout.write("ready\n");
    if (when === "at once") reactor.unwatch(fd);
    if (when === "later") setTimeout(() => reactor.unwatch(fd), 50);
  });
  signal(fd);
}
