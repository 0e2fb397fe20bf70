import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { bufferAt } from "../../ffi/deno.ts";
import { Iovec } from "../../ffi/iovec.ts";
import { Segments } from "../../src/memory/segments.ts";
import { Span } from "../../src/memory/span.ts";
import { file, guestMemory, region } from "./memory_file.ts";

const LENGTH = 64;

/** 64 bytes 0, 1, 2, … in pieces of 10. */
function numbered(t: TestContext): Segments {
  const memory = guestMemory(t);
  const { bytes } = memory.add(region(file(t, "span", 1), 0, 1));
  bytes.fill(0xff);
  const segments = new Segments();
  for (let at = 0; at < LENGTH; at += 10) segments.push(memory.regions[0], at * 2, Math.min(10, LENGTH - at));
  restore(segments);
  return segments;
}

function restore(segments: Segments): void {
  segments.copyFrom(Uint8Array.from({ length: LENGTH }, (_, i) => i));
}

function content(segments: Segments): number[] {
  const target = new Uint8Array(LENGTH);
  segments.copyTo(target);
  return [...target];
}

test("a span is empty until it is set, and can be set again", { timeout: 5000 }, (t) => {
  const segments = numbered(t);
  const span = new Span();
  assert.equal(span.byteLength, 0);
  assert.equal(span.copyTo(new Uint8Array(1)), 0);
  assert.equal(span.set(segments, 8, 4), span);
  assert.deepEqual([...span.views()].flatMap((view) => [...view]), [8, 9, 10, 11]);
  span.set(segments, 60, 4);
  assert.deepEqual([...span.views(1)].flatMap((view) => [...view]), [61, 62, 63]);
});

test("whatever is done with a span stays within it", { timeout: 10_000 }, (t) => {
  const segments = numbered(t);
  const span = new Span();
  const whole = Array.from({ length: LENGTH }, (_, i) => i);
  const cases = fc.record({
    start: fc.nat(LENGTH),
    length: fc.nat(LENGTH),
    position: fc.nat(LENGTH + 8),
    wanted: fc.nat(LENGTH + 8),
  });
  fc.assert(
    fc.property(cases, ({ start, length, position, wanted }) => {
      restore(segments);
      const size = Math.min(length, LENGTH - start);
      span.set(segments, start, size);
      const part = whole.slice(start, start + size).slice(position);

      const target = new Uint8Array(wanted).fill(0xaa);
      const read = span.copyTo(target, position);
      assert.equal(read, Math.min(wanted, part.length));
      assert.deepEqual([...target], [...part.slice(0, wanted), ...new Array(wanted - read).fill(0xaa)]);

      assert.deepEqual([...span.views(position)].flatMap((view) => [...view]), part);

      const iovec = new Iovec(16);
      assert.equal(span.toIovec(iovec, position), part.length);
      const words = new BigUint64Array(bufferAt(iovec.address, 256));
      const bytes = Array.from({ length: iovec.count }, (_, i) => [
        ...new Uint8Array(bufferAt(words[2 * i], Number(words[2 * i + 1]))),
      ]);
      assert.deepEqual(bytes.flat(), part);

      const expected = [...whole];
      assert.equal(span.copyFrom(new Uint8Array(wanted).fill(0xbb), position), read);
      expected.fill(0xbb, start + position, start + position + read);
      assert.deepEqual(content(segments), expected);

      span.clear(position);
      expected.fill(0, start + position, start + position + part.length);
      assert.deepEqual(content(segments), expected);
    }),
    { seed: 0x5eed, numRuns: 300 },
  );
});
