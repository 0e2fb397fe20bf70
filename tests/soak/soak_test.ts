import assert from "node:assert/strict";
import { test } from "node:test";
import { eventfd } from "../../ffi/eventfd.ts";
import { close } from "../../ffi/fd.ts";
import { onEnd } from "../support/cleanup.ts";
import { soak } from "./run.ts";

// The soak itself: two seconds of it, and what it says of what it should find. `deno task soak` is the real thing.

const LIMIT = { timeout: 120_000 };
const SHORT = { time: 2000, restEvery: 500, seed: 7 };

test("guests come, work and go, and nothing is left", LIMIT, async (t) => {
  const { done, holdings } = await soak(t, { ...SHORT, devices: ["rng", "scsi", "console"] });
  assert.ok(done.sessions > 3 && done.requests > 20, JSON.stringify(done));
  assert.match(holdings.summary, /\d+ descriptors .* at first; .* at last; counted \d+ times/);
});

test("descriptors that are left are found, and the seed is told", LIMIT, async (t) => {
  const left: number[] = [];
  onEnd(t, () => left.forEach(close));
  const onRest = (): void => void left.push(eventfd());
  await assert.rejects(soak(t, { ...SHORT, devices: ["rng"], onRest }), (error: Error) => {
    assert.match(error.message, /^held: descriptors: \d+ at first, \d+ at last\nseed 7; the last events:\n/);
    assert.match(error.message, /rng \((packed|split)\) sessions/);
    return true;
  });
});
