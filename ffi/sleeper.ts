/**
 * The thread in which a {@link Reactor} sleeps: blocked in the kernel until a descriptor becomes ready, then one
 * hop to the isolate. It never handles anything.
 *
 * @module
 */

import { workerMain } from "./deno.ts";
import { Epoll, EpollEvent } from "./epoll.ts";

/** What the reactor tells its sleeper. */
export interface SleeperMessage {
  /** The reactor's wait set. */
  readonly watched: number;
  /** An eventfd that ends the sleeper. */
  readonly stop: number;
  /** Cell 0 counts the times that something became ready. */
  readonly cell: SharedArrayBuffer;
}

/** Runs until `stop` rings. */
function sleep({ watched, stop, cell }: SleeperMessage): void {
  const count = new Int32Array(cell);
  const outer = new Epoll();
  // Edge-triggered: one wake-up for each change of the inner set, so the isolate need not re-arm anything,
  // and what it has not handled yet does not make this thread spin.
  outer.add(watched, EpollEvent.IN | EpollEvent.EDGE);
  outer.add(stop);
  for (;;) {
    const n = outer.wait(-1);
    if (outer.ready.slice(0, n).includes(stop)) break;
    if (n === 0) continue;
    Atomics.add(count, 0, 1);
    Atomics.notify(count, 0);
  }
  outer.close();
  Atomics.store(count, 1, 1);
  Atomics.notify(count, 1);
}

workerMain(sleep);
