import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { distance, nearest } from "../../src/cli/suggestion.ts";

test("a distance counts letters wrong, missing, too many and exchanged", () => {
  for (
    const [a, b, expected] of [
      ["", "", 0],
      ["", "abc", 3],
      ["blk", "blk", 0],
      ["blk", "bkl", 1],
      ["bl", "blk", 1],
      ["blkk", "blk", 1],
      ["bxk", "blk", 1],
      ["ca", "abc", 3],
      ["kitten", "sitting", 3],
    ] as const
  ) assert.equal(distance(a, b), expected, `${a} ${b}`);
});

test("a distance is 0 between equals alone, the same both ways, and at most the longer word", () => {
  const word = fc.string({ maxLength: 12 });
  fc.assert(
    fc.property(word, word, (a, b) => {
      const found = distance(a, b);
      assert.equal(found === 0, a === b);
      assert.equal(found, distance(b, a));
      assert.ok(found <= Math.max(a.length, b.length) && found >= Math.abs(a.length - b.length));
    }),
    { numRuns: 300 },
  );
});

test("only what is near is suggested", () => {
  const known = ["socket-path", "socket-mode", "read-only", "fd"];
  for (
    const [word, expected] of [
      ["soket-path", "socket-path"],
      ["socket-pat", "socket-path"],
      ["socketmode", "socket-mode"],
      ["readonly", "read-only"],
      ["read", "read-only"],
      ["df", "fd"],
      ["xyz", undefined],
      ["", undefined],
      ["s".repeat(10_000), undefined],
    ] as const
  ) assert.equal(nearest(word, known), expected, word);
  assert.equal(nearest("x", []), undefined);
});
