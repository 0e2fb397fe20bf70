import assert from "node:assert/strict";
import test from "node:test";
import { NAP, Pace } from "../../ffi/pace.ts";

const CEILING = 0.05;

/** A pace that has learned that gaps are short. */
function busy(gap = 0.003, times = 500): Pace {
  const pace = new Pace(CEILING);
  for (let i = 0; i < times; i++) pace.lookPaid(gap);
  return pace;
}

/** Looks in vain until it is given up; how often that was. */
function giveUp(pace: Pace): number {
  let times = 0;
  while (pace.window > 0) {
    pace.lookedInVain();
    assert.ok(++times < 100, "looking never ends");
  }
  return times;
}

/** Gaps of a length until it looks again; how many that were. */
function untilTry(pace: Pace, gap: number): number {
  let times = 0;
  while (pace.window === 0 && times < 5000) {
    pace.slept(gap);
    times++;
  }
  return times;
}

test("before anything is known, it looks as long as it may", () => {
  assert.equal(new Pace(CEILING).window, CEILING);
  assert.equal(new Pace(0).window, 0);
});

test("it looks a few times longer than gaps are", () => {
  assert.ok(busy(0.003).window < 0.012, `${busy(0.003).window}`);
  assert.ok(busy(0.003).window > 0.006);
  assert.equal(busy(0.03).window, CEILING);
});

test("one long gap among short ones does not end looking", () => {
  const pace = busy();
  pace.lookedInVain();
  pace.slept(1000);
  assert.ok(pace.window > 0.006);
  // A gap that a longer look would have seen makes it look longer.
  pace.lookedInVain();
  pace.slept(0.04);
  assert.equal(pace.window, CEILING);
});

test("looking goes on while one look in three pays, and ends when fewer do", () => {
  const often = busy();
  for (let i = 0; i < 300; i++) i % 3 === 0 ? often.lookPaid(0.003) : often.lookedInVain();
  assert.ok(often.window > 0);
  const seldom = busy();
  for (let i = 0; i < 300; i++) i % 4 === 0 ? seldom.lookPaid(0.003) : seldom.lookedInVain();
  seldom.lookedInVain();
  assert.equal(seldom.window, 0);
});

test("given up, it is tried anew after short gaps, ever more rarely", () => {
  const pace = busy();
  giveUp(pace);
  let before = 0;
  for (let round = 0; round < 6; round++) {
    const gaps = untilTry(pace, 0.06);
    assert.ok(gaps > before, `round ${round}: ${gaps} after ${before}`);
    before = gaps;
    const looks = giveUp(pace);
    assert.ok(looks < 10, `${looks} looks`);
  }
  for (let round = 0; round < 20; round++) {
    assert.ok(untilTry(pace, 0.06) <= 1024);
    giveUp(pace);
  }
  untilTry(pace, 0.06);
  pace.lookPaid(0.03);
  giveUp(pace);
  assert.ok(untilTry(pace, 0.06) <= 16, "what has paid is tried soon");
});

test("long gaps are no reason to look", () => {
  const pace = busy();
  giveUp(pace);
  assert.equal(untilTry(pace, 0.2), 5000);
});

test("it naps once gaps are short, whether it may look or not, and as long as naps pay", () => {
  const pace = new Pace(0);
  assert.equal(pace.naps, false);
  for (let i = 0; i < 100; i++) pace.slept(0.9 * NAP);
  assert.equal(pace.naps, false, "gaps are long");
  let before = 0;
  for (let round = 0; round < 5; round++) {
    let gaps = 0;
    for (; !pace.naps; gaps++) pace.slept(0.08);
    assert.ok(gaps > before, `round ${round}: ${gaps} after ${before}`);
    before = gaps;
    for (let i = 0; i < 10 && pace.naps; i++) pace.napped(false);
    assert.equal(pace.naps, false, "naps in vain");
  }
  while (!pace.naps) pace.slept(0.08);
  for (let i = 0; i < 100; i++) pace.napped(i % 3 === 0);
  assert.equal(pace.naps, true);
});
