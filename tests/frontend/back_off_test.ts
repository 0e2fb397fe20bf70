import assert from "node:assert/strict";
import { test } from "node:test";
import { BackOff } from "../../src/frontend/reconnect.ts";

const OPTIONS = { firstDelay: 5, longestDelay: 20, patience: Infinity };

test("waits get longer, up to the longest", { timeout: 10_000 }, async () => {
  const backOff = new BackOff(OPTIONS, 5, () => assert.fail("there is no deadline"));
  const waits: number[] = [];
  for (let i = 0; i < 4; i++) {
    const start = performance.now();
    await backOff.wait();
    waits.push(performance.now() - start);
  }
  // Timers may be late, but not early (by more than what they are rounded to).
  [5, 10, 20, 20].forEach((least, i) => assert.ok(waits[i] > least - 1.5, `wait ${i} took ${waits[i]} ms`));
  assert.equal(backOff.over, false);
  backOff.stop();
});

test("a wait ends when there is nothing to wait for any more", { timeout: 10_000 }, async () => {
  const long = { ...OPTIONS, longestDelay: 1e6 };
  const stopped = new BackOff(long, 1e6, () => assert.fail("there is no deadline"));
  const waiting = stopped.wait();
  stopped.stop();
  await waiting;
  await stopped.wait();
  assert.ok(stopped.over);

  let late = 0;
  const impatient = new BackOff({ ...long, patience: 10 }, 1e6, () => void late++);
  await impatient.wait();
  assert.equal(late, 1);
  assert.ok(impatient.over);
});
