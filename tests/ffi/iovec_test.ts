import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { bufferAt } from "../../ffi/deno.ts";
import { Iovec, MAX_PIECES } from "../../ffi/iovec.ts";

type Piece = readonly [address: number, length: number];

/** The list as the kernel sees it. */
function pieces(iovec: Iovec): Piece[] {
  const words = new BigUint64Array(bufferAt(iovec.address, Math.max(16, iovec.count * 16)));
  return Array.from({ length: iovec.count }, (_, i) => [Number(words[2 * i]), Number(words[2 * i + 1])]);
}

/** Dropping bytes from the front, the slow way. */
function drop(list: readonly Piece[], moved: number): Piece[] {
  let left = moved;
  const rest: Piece[] = [];
  for (const [address, length] of list) {
    const taken = Math.min(left, length);
    left -= taken;
    if (taken < length) rest.push([address + taken, length - taken]);
  }
  return rest;
}

function fill(iovec: Iovec, list: readonly Piece[]): void {
  iovec.clear();
  for (const [address, length] of list) iovec.push(address, length);
}

test("a list is struct iovec[]: address and length, 64 bits each", { timeout: 5000 }, () => {
  const iovec = new Iovec(4);
  const list: Piece[] = [[0x1000, 1], [2 ** 53 - 1, 2 ** 32 - 1], [2 ** 32, 0], [0x7fff_ffff_f000, 4096]];
  fill(iovec, list);
  assert.deepEqual(pieces(iovec), list);
  assert.equal(iovec.byteLength, 1 + 2 ** 32 - 1 + 4096);
});

test("it is full when it holds as many as it was made for", { timeout: 5000 }, () => {
  const iovec = new Iovec(2);
  assert.equal(iovec.full, false);
  iovec.push(1, 1);
  assert.equal(iovec.full, false);
  iovec.push(2, 2);
  assert.equal(iovec.full, true);
  iovec.clear();
  assert.deepEqual([iovec.full, iovec.count, iovec.byteLength], [false, 0, 0]);
});

test("the kernel takes 1024 pieces, and so does a list", { timeout: 5000 }, () => {
  assert.equal(MAX_PIECES, 1024);
  const iovec = new Iovec();
  for (let i = 0; i < 1023; i++) iovec.push(i, 1);
  assert.equal(iovec.full, false);
  iovec.push(1023, 1);
  assert.equal(iovec.full, true);
});

test("advancing within a piece carries into the upper half of its address", { timeout: 5000 }, () => {
  const iovec = new Iovec(1);
  iovec.push(0x7f_ffff_fff0, 0x20);
  iovec.advance(0x18);
  assert.deepEqual(pieces(iovec), [[0x80_0000_0008, 8]]);
});

test("advancing drops bytes from the front, in one step or in many", { timeout: 10_000 }, () => {
  const piece = fc.tuple(
    fc.oneof(fc.nat(2 ** 31 - 1), fc.integer({ min: 2 ** 32 - 64, max: 2 ** 48 })),
    fc.oneof(fc.nat(8), fc.integer({ min: 1, max: 2 ** 32 - 1 })),
  );
  const lists = fc.array(piece, { minLength: 1, maxLength: 12 });
  const iovec = new Iovec(12);
  fc.assert(
    fc.property(
      lists,
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 6 }),
      (list, parts) => {
        fill(iovec, list);
        let expected: readonly Piece[] = list;
        for (const part of parts) {
          const moved = Math.floor(iovec.byteLength * part);
          iovec.advance(moved);
          expected = drop(expected, moved);
          assert.equal(iovec.byteLength, expected.reduce((sum, [, length]) => sum + length, 0));
          // Pieces of length 0 may stay at the front or go; they mean nothing.
          assert.deepEqual(pieces(iovec).filter(([, length]) => length > 0), expected);
        }
        iovec.advance(iovec.byteLength);
        assert.deepEqual([iovec.count, iovec.byteLength], [0, 0]);
      },
    ),
    { seed: 0x5eed, numRuns: 500 },
  );
});
