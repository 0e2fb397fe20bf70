/**
 * Does requests for `perf stat` to count. Started by `perf.ts`, with a {@link RingShape}, a count of requests and the two
 * fifos by which perf is told when to count. Prints how many requests were counted.
 */

import { openSync, readSync, writeSync } from "node:fs";
import process from "node:process";
import { Trial } from "./ring_trial.ts";

const [shape, count, control, answer] = process.argv.slice(2);
const trial = new Trial(JSON.parse(shape));
// What is not compiled yet is not counted.
trial.run(Number(count), (work) => work());

const [out, back] = [openSync(control, "w"), openSync(answer, "r")];
const word = new Uint8Array(16);

/** perf has done it when it answers. */
function tell(command: "enable" | "disable"): void {
  writeSync(out, `${command}\n`);
  readSync(back, word);
}

const done = trial.run(Number(count), (work) => {
  tell("enable");
  work();
  tell("disable");
});
console.log(done);
