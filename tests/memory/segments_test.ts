import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { bufferAt } from "../../ffi/deno.ts";
import { Iovec } from "../../ffi/iovec.ts";
import type { Region } from "../../src/memory/region.ts";
import { Segments } from "../../src/memory/segments.ts";
import { file, guestMemory, PAGE, region } from "./memory_file.ts";

function regions(t: TestContext): readonly Region[] {
  const memory = guestMemory(t);
  const fd = file(t, "segments", 3);
  memory.replace([region(fd, 0, 1), region(fd, 10, 1, 1), {
    ...region(fd, 20, 1),
    mmapOffset: 2 * PAGE - 7,
  }]);
  return memory.regions;
}

/** Pieces of given lengths, by turns in each region, with a byte between one and the next there. */
function pieces(of: readonly Region[], lengths: readonly number[]): Segments {
  const segments = new Segments();
  const next = of.map(() => 0);
  lengths.forEach((length, i) => {
    const which = i % of.length;
    segments.push(of[which], next[which], length);
    next[which] += length + 1;
  });
  return segments;
}

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (seed * 31 + i * 7 + (i >> 8)) & 0xff);
}

const lengths = fc.array(fc.oneof(fc.nat(5), fc.nat(60)), { maxLength: 10 });
const place = fc.nat(300);
const operations = fc.array(
  fc.oneof(
    fc.record({ do: fc.constant("setUint8" as const), at: place, value: fc.nat(255) }),
    fc.record({ do: fc.constant("copyFrom" as const), at: place, length: fc.nat(200), seed: fc.nat(255) }),
    fc.record({ do: fc.constant("clearBytes" as const), at: place, length: fc.nat(100) }),
    fc.record({ do: fc.constant("copyTo" as const), at: place, length: fc.nat(200) }),
    fc.record({ do: fc.constant("get" as const), at: place }),
    fc.record({ do: fc.constant("touch" as const), at: place }),
    fc.record({
      do: fc.constant("copyInto" as const),
      at: place,
      length: fc.nat(200),
      to: fc.nat(20),
      sizes: lengths,
    }),
    fc.record({ do: fc.constant("views" as const), at: place, length: fc.nat(200) }),
    fc.record({ do: fc.constant("toIovec" as const), at: place, length: fc.nat(200), room: fc.nat(6) }),
  ),
  { maxLength: 20 },
);

/** What the bytes `at` to `at + size` mean as a little-endian number, or `undefined` past the end. */
function number(model: Uint8Array, at: number, size: number): number | undefined {
  if (at + size > model.length) return undefined;
  return model.subarray(at, at + size).reduceRight((sum, byte) => sum * 256 + byte, 0);
}

function tryGet(get: () => number): number | undefined {
  try {
    return get();
  } catch (error) {
    assert.ok(error instanceof RangeError, String(error));
    return undefined;
  }
}

function join(views: Iterable<Uint8Array>): number[] {
  return [...views].flatMap((view) => [...view]);
}

test("pieces behave like one array", { timeout: 20_000 }, (t) => {
  const all = regions(t);
  const others = regions(t);
  fc.assert(
    fc.property(lengths, operations, (sizes, steps) => {
      for (const each of all) each.bytes.fill(0xee);
      const segments = pieces(all, sizes);
      const model = new Uint8Array(sizes.reduce((sum, size) => sum + size, 0)).fill(0xee);
      assert.deepEqual([segments.count, segments.byteLength], [sizes.length, model.length]);

      for (const step of steps) {
        const { at } = step;
        if (step.do === "setUint8") {
          if (at < model.length) segments.setUint8(at, model[at] = step.value);
          else assert.throws(() => segments.setUint8(at, step.value), { name: "RangeError" });
        } else if (step.do === "copyFrom") {
          const source = pattern(step.length, step.seed);
          const fits = Math.max(0, Math.min(step.length, model.length - at));
          assert.equal(segments.copyFrom(source, at), fits);
          model.set(source.subarray(0, fits), Math.min(at, model.length));
        } else if (step.do === "clearBytes") {
          segments.clearBytes(at, step.length);
          model.fill(0, Math.min(at, model.length), at + step.length);
        } else if (step.do === "copyTo") {
          const target = new Uint8Array(step.length).fill(0x11);
          const expected = new Uint8Array(step.length).fill(0x11);
          const part = model.subarray(at, at + step.length);
          expected.set(part);
          assert.equal(segments.copyTo(target, at), part.length);
          assert.deepEqual(target, expected);
        } else if (step.do === "get") {
          assert.equal(tryGet(() => segments.getUint8(at)), number(model, at, 1));
          assert.equal(tryGet(() => segments.getUint16(at)), number(model, at, 2));
          assert.equal(tryGet(() => segments.getUint32(at)), number(model, at, 4));
          assert.equal(tryGet(() => segments.getUint64(at)), number(model, at, 8));
        } else if (step.do === "touch") {
          assert.ok(segments.touch() >= 0);
          segments.claim();
        } else if (step.do === "copyInto") {
          const target = pieces(others, step.sizes);
          const before = join(target.views());
          segments.copyInto(target, step.to, at, step.length);
          const expected = [...before];
          const part = model.subarray(at, at + step.length);
          for (let i = 0; i < part.length && step.to + i < before.length; i++) {
            expected[step.to + i] = part[i];
          }
          assert.deepEqual(join(target.views()), expected);
        } else if (step.do === "views") {
          const part = [...model.subarray(at, at + step.length)];
          assert.deepEqual(join(segments.views(at, step.length)), part);
          if (at <= model.length) assert.deepEqual(join(segments.views(at)), [...model.subarray(at)]);
        } else {
          const iovec = new Iovec(Math.max(1, step.room));
          const done = segments.toIovec(iovec, at, step.length);
          assert.equal(done, iovec.byteLength);
          const wanted = [...model.subarray(at, at + step.length)];
          if (!iovec.full) assert.equal(done, wanted.length);
          const words = new BigUint64Array(bufferAt(iovec.address, 16 * Math.max(1, step.room)));
          const there = Array.from({ length: iovec.count }, (_, i) => {
            const length = Number(words[2 * i + 1]);
            return length === 0 ? [] : [...new Uint8Array(bufferAt(words[2 * i], length))];
          });
          assert.deepEqual(there.flat(), wanted.slice(0, done));
        }
      }
      assert.deepEqual(join(segments.views()), [...model]);
      // Nothing but the pieces was touched.
      segments.copyFrom(new Uint8Array(model.length).fill(0xee));
      assert.ok(all.every((each) => each.bytes.every((byte) => byte === 0xee)));
    }),
    { seed: 0x5eed, numRuns: 150 },
  );
});

test("numbers are little-endian, within a piece and across the cut", { timeout: 5000 }, (t) => {
  const all = regions(t);
  const bytes = new Uint8Array([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x02, 0x00]);
  for (const cuts of [[8], [3, 5], [1, 1, 1, 1, 1, 1, 1, 1], [0, 8]]) {
    for (const each of all) each.bytes.fill(0xee);
    const segments = pieces(all, cuts);
    segments.copyFrom(bytes);
    assert.equal(segments.getUint16(0), 0x7788);
    assert.equal(segments.getUint32(0), 0x5566_7788);
    assert.equal(segments.getUint32(1), 0x4455_6677);
    assert.equal(segments.getUint64(0), 0x2_3344_5566_7788);
  }
});

test("a number above 2^53 is rounded, and stays larger than any size", { timeout: 5000 }, (t) => {
  const segments = pieces(regions(t), [8]);
  segments.copyFrom(new Uint8Array(8).fill(0xff));
  assert.equal(segments.getUint64(0), 2 ** 64);
  assert.equal(segments.getUint32(4), 2 ** 32 - 1);
});

test("before the start and past the end there is nothing to read or write", { timeout: 5000 }, (t) => {
  const all = regions(t);
  const segments = new Segments();
  segments.push(all[0], 100, 4);
  segments.push(all[1], 200, 4);
  const gets = [
    (at: number): number => segments.getUint8(at),
    (at: number): number => segments.getUint16(at),
    (at: number): number => segments.getUint32(at),
    (at: number): number => segments.getUint64(at),
  ];
  gets.forEach((get, i) => {
    get(8 - 2 ** i);
    for (const at of [-1, 8, 9 - 2 ** i]) {
      assert.throws(() => get(at), { name: "RangeError" }, `${2 ** i} at ${at}`);
    }
  });
  assert.throws(() => segments.setUint8(8, 1), { name: "RangeError", message: "bytes 8 to 9 of 8" });
  assert.throws(() => segments.setUint8(-1, 1), { name: "RangeError" });
  assert.throws(() => new Segments().getUint8(0), { name: "RangeError", message: "bytes 0 to 1 of 0" });
});

test("a list is filled anew, also after a very long one", { timeout: 5000 }, (t) => {
  const all = regions(t);
  const segments = new Segments();
  for (const count of [1, 2000, 3]) {
    segments.clear();
    assert.deepEqual([segments.count, segments.byteLength], [0, 0]);
    assert.equal(segments.copyTo(new Uint8Array(1)), 0);
    for (let i = 0; i < count; i++) segments.push(all[0], i, 1);
    assert.deepEqual([segments.count, segments.byteLength], [count, count]);
    segments.setUint8(count - 1, 1);
    assert.equal(all[0].bytes[count - 1], 1);
  }
});
