import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BlkDevice, NullStorage } from "../../src/devices/blk/mod.ts";
import { RngDevice } from "../../src/devices/rng/mod.ts";
import { type FaultRule, FaultRuleError, type FaultSubject, parseFault } from "../../src/faults/mod.ts";

const LIMIT = { timeout: 30_000 };
const blk: FaultSubject = {
  name: "blk",
  requests: new BlkDevice({ storage: new NullStorage(0) }).definition.requests,
};
const rng: FaultSubject = { name: "rng", requests: new RngDevice().definition.requests };
const own: FaultSubject = { name: "my device" };

/** What is not said: a rule is about every request, always. */
const ALL = { after: 0, every: 1, probability: 1, seed: 1, times: Infinity };

test("a rule is what it says", LIMIT, () => {
  const rules: readonly [string, FaultSubject, Partial<FaultRule>][] = [
    ["blk.write:every=100:error=EIO", blk, { kind: "write", every: 100, error: 1 }],
    ["blk:lose:short=0", blk, { kind: undefined, lose: true, short: 0 }],
    ["blk:once:drop", blk, { kind: undefined, times: 1, drop: true }],
    ["device.flush:error=EOPNOTSUPP", blk, { kind: "flush", error: 2 }],
    ["blk.read:sector=8-15:after=3:delay=2.5", blk, {
      kind: "read",
      places: [8, 15],
      after: 3,
      delay: 2.5,
    }],
    ["blk.read:sector=8-:corrupt", blk, { kind: "read", places: [8, Infinity], corrupt: 1 }],
    ["blk.read:sector=8:corrupt=3:short=512", blk, {
      kind: "read",
      places: [8, 8],
      corrupt: 3,
      short: 512,
    }],
    ["blk:stall", blk, { kind: undefined, stall: Infinity }],
    ["blk:stall=10", blk, { kind: undefined, stall: 10 }],
    ["blk:reorder", blk, { kind: undefined, reorder: 2 }],
    ["rng:probability=0.25:seed=9:times=4:short=1", rng, {
      kind: undefined,
      probability: 0.25,
      seed: 9,
      times: 4,
      short: 1,
    }],
    ["my device:ring=2:drop", own, { kind: undefined, ring: 2, drop: true }],
    ["device:corrupt", own, { kind: undefined, corrupt: 1 }],
  ];
  for (const [text, subject, expected] of rules) {
    assert.deepEqual(parseFault(text, subject), { text, ...ALL, ...expected }, text);
  }
});

test("what cannot be understood, or would never happen, is refused with the part's name", LIMIT, () => {
  const wrong: readonly [string, FaultSubject, RegExp][] = [
    ["", blk, /fault '': '' is not this device, which is 'blk' \(or just 'device'\)/],
    ["net.tx:drop", blk, /'net\.tx' is not this device, which is 'blk'/],
    ["blk.trim:drop", blk, /'blk\.trim': blk has no requests 'trim'; there are read, write, .* and id/],
    ["my device.read:drop", own, /does not tell kinds of request apart; 'ring=N' chooses a ring/],
    [
      "blk",
      blk,
      /does not say what is to happen: error, lose, drop, stall, delay, reorder, corrupt and short/,
    ],
    ["blk:evry=3:drop", blk, /'evry=3' is neither a selector nor an action; there are after, .*sector/],
    ["rng:sector=3:drop", rng, /'sector=3' is neither a selector nor an action/],
    ["blk::drop", blk, /'' is neither a selector/],
    ["blk:every=0:drop", blk, /'every=0': expected a number of requests from 1 to/],
    ["blk:every:drop", blk, /'every': expected a number of requests/],
    ["blk:every=1.5:drop", blk, /'every=1\.5': expected/],
    ["blk:every=1e3:drop", blk, /'every=1e3': expected/],
    ["blk:probability=1.01:drop", blk, /'probability=1\.01': expected a probability from 0 to 1/],
    ["blk:delay=-1", blk, /'delay=-1': expected a time in ms from 0/],
    ["blk:delay=86400001", blk, /'delay=86400001'/],
    ["blk:drop=1", blk, /'drop=1': 'drop' has no value/],
    ["blk:every=2:every=3:drop", blk, /'every' is given twice/],
    ["blk:once:times=2:drop", blk, /'once' and 'times' exclude each other/],
    ["blk:sector=9-8:drop", blk, /'sector=9-8': the last is before the first/],
    ["blk:sector=x:drop", blk, /'sector=x': expected N, FIRST-LAST or FIRST-/],
    ["blk:error=ENOENT", blk, /'error=ENOENT': blk can fail a request with EIO and EOPNOTSUPP/],
    ["blk:error", blk, /'error': blk can fail a request with/],
    ["blk:error=toString", blk, /'error=toString'/],
    ["rng:error=EIO", rng, /answers of rng have no status for errors; its requests can be dropped/],
    ["blk:drop:delay=3", blk, /'drop' leaves no answer for 'delay'/],
    ["blk:stall:error=EIO", blk, /'stall' leaves no answer for 'error'/],
    ["blk:error=EIO:corrupt", blk, /'error' leaves nothing to 'corrupt'/],
    ["blk.read:lose:corrupt", blk, /'lose' leaves nothing to 'corrupt'/],
    ["blk:lose:error=EIO", blk, /'error' and 'lose' exclude each other/],
    ["blk.write:corrupt", blk, /for blk\.write that is no data/],
  ];
  for (const [text, subject, said] of wrong) {
    assert.throws(() => parseFault(text, subject), (error) => {
      assert.ok(error instanceof FaultRuleError);
      assert.ok(error.message.startsWith(`fault '${text}': `), error.message);
      assert.match(error.message, said);
      return true;
    }, text);
  }
});

const count = fc.integer({ min: 1, max: 0x7fff_ffff });
const selectors = fc.record({
  after: fc.nat(0x7fff_ffff),
  every: count,
  times: count,
  probability: fc.integer({ min: 0, max: 100 }).map((percent) => percent / 100),
  seed: fc.integer({ min: 0, max: 0xffff_ffff }),
  ring: fc.nat(255),
}, { requiredKeys: [] });
const actions = fc.oneof(
  fc.record({ drop: fc.constant(true) }),
  fc.record({ stall: fc.nat(86_400_000) }),
  fc.record({
    delay: fc.nat(86_400_000),
    reorder: fc.integer({ min: 2, max: 32768 }),
    corrupt: fc.integer({ min: 1, max: 1 << 20 }),
    short: fc.nat(0xffff_ffff),
  }, { requiredKeys: [] }).filter((some) => Object.keys(some).length > 0),
);

test("every rule that can be said is understood, in whatever order", LIMIT, () => {
  fc.assert(fc.property(selectors, actions, fc.integer(), (some, what, seed) => {
    const parts = Object.entries({ ...some, ...what })
      .map(([name, value]) => value === true ? name : `${name}=${value}`)
      .map((part, i) => [Math.sin(seed + i), part] as const)
      .sort(([a], [b]) => a - b)
      .map(([, part]) => part);
    const text = ["device.read", ...parts].join(":");
    assert.deepEqual(parseFault(text, blk), { text, ...ALL, kind: "read", ...some, ...what });
  }));
});

test("any other text is refused, and never by anything but a rule's error", LIMIT, () => {
  const word = fc.constantFrom(
    ...[
      "blk",
      "lose",
      "device",
      ".",
      ":",
      "=",
      "-",
      "read",
      "every",
      "error",
      "EIO",
      "drop",
      "sector",
      "stall",
      "1",
    ],
    ...["0.5", "constructor", "__proto__", " ", "once", "\n"],
  );
  const text = fc.oneof(fc.array(word, { maxLength: 12 }).map((words) => words.join("")), fc.string());
  fc.assert(
    fc.property(text, (text) => {
      try {
        const rule = parseFault(text, blk);
        assert.match(text, /^(blk|device)(\.\w+)?:/);
        assert.ok(
          ["error", "lose", "drop", "stall", "delay", "reorder", "corrupt", "short"].some((name) =>
            rule[name as keyof FaultRule] !== undefined
          ),
        );
      } catch (error) {
        if (!(error instanceof FaultRuleError)) throw error;
      }
    }),
    { numRuns: 2000 },
  );
});
