import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Segments } from "../../src/memory/segments.ts";
import { file, guestMemory, PAGE, region } from "./memory_file.ts";

test("a range within one region is one piece", { timeout: 5000 }, (t) => {
  const memory = guestMemory(t);
  memory.add(region(file(t, "one", 2), 5, 2));
  const segments = new Segments();
  assert.ok(memory.append(segments, 5 * PAGE + 10, PAGE));
  assert.deepEqual([segments.count, segments.byteLength], [1, PAGE]);
  segments.setUint8(0, 9);
  assert.equal(memory.regions[0].bytes[10], 9);
});

test(
  "a range across neighbours is cut where they meet, whatever their place in files",
  { timeout: 5000 },
  (t) => {
    const memory = guestMemory(t);
    const fd = file(t, "neighbours", 3);
    memory.add(region(fd, 6, 1, 0));
    memory.add(region(fd, 5, 1, 2));
    memory.add(region(file(t, "third", 1), 7, 1));
    const segments = new Segments();

    assert.ok(memory.append(segments, 6 * PAGE - 3, PAGE + 6));
    assert.deepEqual([segments.count, segments.byteLength], [3, PAGE + 6]);
    segments.copyFrom(new Uint8Array(PAGE + 6).fill(1));
    const written = [5, 6, 7].map((page) =>
      memory.find(page * PAGE)?.bytes.reduce((sum, byte) => sum + byte, 0)
    );
    assert.deepEqual(written, [3, PAGE, 3]);
  },
);

test("a range that runs into a hole is not in memory", { timeout: 5000 }, (t) => {
  const memory = guestMemory(t);
  const fd = file(t, "hole", 2);
  memory.add(region(fd, 0, 1));
  memory.add(region(fd, 2, 1, 1));
  for (const [address, length] of [[0, PAGE + 1], [PAGE, 1], [PAGE - 1, 2 * PAGE], [2 * PAGE, PAGE + 1]]) {
    assert.equal(memory.append(new Segments(), address, length), false, `${address}+${length}`);
  }
});

test("addresses at the end of 64 bits are not in memory, and do not wrap around", { timeout: 5000 }, (t) => {
  const memory = guestMemory(t);
  memory.add(region(file(t, "low", 1), 0, 1));
  for (const address of [2 ** 64 - PAGE, 2 ** 64 - 1, 2 ** 63, 2 ** 53]) {
    assert.equal(memory.append(new Segments(), address, 2 * PAGE), false, `${address}`);
  }
});

test("nothing is in any memory", { timeout: 5000 }, (t) => {
  const segments = new Segments();
  assert.equal(guestMemory(t).append(segments, 123, 0), true);
  assert.equal(segments.count, 0);
});

test("translation is what looking up each byte gives", { timeout: 10_000 }, (t) => {
  const pages = 24;
  const fd = file(t, "model", pages);
  const memory = guestMemory(t);
  const tables = fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 1, max: 4 })), {
    minLength: 1,
    maxLength: 8,
  });
  fc.assert(
    fc.property(tables, fc.nat(pages * PAGE), fc.nat(6 * PAGE), (table, address, length) => {
      // Regions and holes one after the other; the file has them in the opposite order.
      let page = 0;
      const sources = table.flatMap(([present, size]) => {
        const source = region(fd, page, Math.min(size, pages - page), Math.max(0, pages - page - size));
        page = Math.min(pages - 1, page + size);
        return present && page < pages - 1 ? [source] : [];
      });
      memory.replace(sources);
      const expected: (string | undefined)[] = Array.from({ length }, (_, i) => {
        const at = address + i;
        const source = sources.find((each) => at >= each.guestAddress && at < each.guestAddress + each.size);
        return source && `${source.guestAddress} ${at - source.guestAddress}`;
      });
      // By words twice: the second time the region is the one of the time before.
      const words = (segments: Segments): boolean => memory.appendWords(segments, address | 0, 0, length);
      for (const append of [words, words, (to: Segments) => memory.append(to, address, length)]) {
        const segments = new Segments();
        const found = append(segments);
        assert.equal(found, !expected.includes(undefined));
        if (!found) continue;
        assert.equal(segments.byteLength, length);
        let position = 0;
        for (const view of segments.views()) {
          const owner = memory.regions.find((each) => each.buffer === view.buffer);
          assert.ok(owner);
          const offset = view.byteOffset - owner.bufferOffset;
          for (const i of [0, view.length - 1]) {
            assert.equal(`${owner.guestAddress} ${offset + i}`, expected[position + i]);
          }
          position += view.length;
        }
        assert.equal(position, length);
      }
    }),
    { seed: 0x5eed, numRuns: 200 },
  );
});
