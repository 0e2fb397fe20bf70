/** A thread that changes a guest's memory all the time. */

import { signal } from "../../../ffi/eventfd.ts";
import { answering } from "../../support/thread.ts";
import { Scribbler, type Scribbling } from "./scribbler.ts";

/** Milliseconds between changes to what is not guest memory. */
const PAUSE = 1;

answering((message) => {
  const data = message as Scribbling;
  const state = new Int32Array(data.state);
  const scribbler = new Scribbler(data);
  const { rings } = data;
  Atomics.store(state, 1, 1);
  Atomics.notify(state, 1);
  for (let n = 0; Atomics.load(state, 0) === 0; n++) {
    scribbler.once();
    if (n % 16 !== 0) continue;
    if (rings.length > 0) signal(rings[n / 16 % rings.length].kick);
    // A record in which nothing is right any more is refused at once: bits change so seldom that work gets done in between.
    else Atomics.wait(state, 0, 0, PAUSE);
  }
  Atomics.store(state, 0, 2);
  Atomics.notify(state, 0);
});
