/**
 * Measures time in a thread of its own: nothing else has been compiled there before. Started by `ring.ts`. The first
 * message is a {@link RingShape}; each after it, a count of requests, is answered with the nanoseconds for each.
 */

import { type RingShape, Trial } from "./ring_trial.ts";
import { quantile } from "./stats.ts";

const scope = self as unknown as {
  onmessage: (event: MessageEvent<RingShape | number>) => void;
  postMessage(message: number): void;
};

/** The median of the fillings, as some are interrupted. */
function nanoseconds(trial: Trial, count: number): number {
  const times: number[] = [];
  trial.run(count, (work, filled) => {
    const start = performance.now();
    work();
    times.push((performance.now() - start) * 1e6 / filled);
  });
  return quantile(times, 0.5);
}

let trial: Trial | undefined;
scope.onmessage = ({ data }) => {
  if (typeof data === "object") trial = new Trial(data);
  else if (trial !== undefined) scope.postMessage(nanoseconds(trial, data));
};
