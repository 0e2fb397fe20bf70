import assert from "node:assert/strict";
import test from "node:test";
import { Segments } from "../../src/memory/segments.ts";
import { countMappings } from "../ffi/descriptors.ts";
import { file, guestMemory, PAGE, region } from "./memory_file.ts";

test("the same table again changes nothing", { timeout: 5000 }, (t) => {
  const fd = file(t, "again", 4);
  const memory = guestMemory(t);
  const table = [region(fd, 0, 2), region(fd, 100, 2, 2)];
  assert.equal(memory.replace(table), true);
  const before = [...memory.regions];

  assert.equal(memory.replace(table), false);
  assert.equal(memory.replace([...table].reverse()), false);
  assert.deepEqual(memory.regions.map((each) => before.indexOf(each)), [0, 1]);
  assert.equal(countMappings("again"), 2);
});

test("what is unchanged stays mapped where it is", { timeout: 5000 }, (t) => {
  const fd = file(t, "kept", 4);
  const memory = guestMemory(t);
  memory.replace([region(fd, 0, 2), region(fd, 100, 2, 2)]);
  const kept = memory.find(0);
  const address = kept?.hostAddress;

  assert.equal(memory.replace([region(fd, 200, 2, 2), region(fd, 0, 2)]), true);
  assert.equal(memory.find(0), kept);
  assert.equal(memory.find(0)?.hostAddress, address);
  assert.equal(memory.find(100 * PAGE), undefined);
  assert.notEqual(memory.find(200 * PAGE), undefined);
  assert.equal(countMappings("kept"), 2);
});

test("a region differs by any of its numbers", { timeout: 5000 }, (t) => {
  const fd = file(t, "differs", 4);
  const memory = guestMemory(t);
  const base = region(fd, 0, 2);
  for (
    const change of [
      { guestAddress: PAGE },
      { size: PAGE },
      { userAddress: base.userAddress + PAGE },
      { mmapOffset: PAGE },
    ]
  ) {
    memory.replace([base]);
    const [before] = memory.regions;
    assert.equal(memory.replace([{ ...base, ...change }]), true, JSON.stringify(change));
    assert.notEqual(memory.regions[0], before);
  }
});

test("the same place in another file is another region", { timeout: 5000 }, (t) => {
  const memory = guestMemory(t);
  memory.replace([region(file(t, "one", 1), 0, 1)]);
  const [before] = memory.regions;
  before.bytes[0] = 1;
  assert.equal(memory.replace([region(file(t, "two", 1), 0, 1)]), true);
  assert.notEqual(memory.regions[0], before);
  assert.equal(memory.regions[0].bytes[0], 0);
  assert.deepEqual([countMappings("one"), countMappings("two")], [0, 1]);
});

test("a table that cannot be mapped leaves the old one, and nothing behind", { timeout: 5000 }, (t) => {
  const fd = file(t, "failing", 4);
  const memory = guestMemory(t);
  memory.replace([region(fd, 0, 1)]);
  const before = memory.regions;

  assert.throws(() => memory.replace([region(fd, 10, 1), region(fd, 20, 5)]), { name: "MemoryError" });
  assert.throws(() => memory.replace([region(fd, 10, 1), region(-1, 20, 1)]), { name: "OsError" });
  assert.throws(() => memory.replace([region(fd, 10, 2), region(fd, 11, 2)]), { name: "MemoryError" });

  assert.equal(memory.regions, before);
  assert.equal(countMappings("failing"), 1);
  before[0].bytes[0] = 1;
  assert.equal(before[0].bytes[0], 1);
});

test("an empty table takes everything away", { timeout: 5000 }, (t) => {
  const fd = file(t, "empty", 2);
  const memory = guestMemory(t);
  memory.replace([region(fd, 0, 1), region(fd, 1, 1, 1)]);
  assert.equal(memory.replace([]), true);
  assert.equal(memory.replace([]), false);
  assert.equal(memory.find(0), undefined);
  assert.equal(countMappings("empty"), 0);
});

test("clearing takes everything away, also what was found last", { timeout: 5000 }, (t) => {
  const memory = guestMemory(t);
  memory.add(region(file(t, "clear", 1), 0, 1));
  memory.find(0);
  memory.clear();
  assert.equal(memory.find(0), undefined);
  assert.equal(countMappings("clear"), 0);
});

test("what goes away stays mapped as long as a request uses it", { timeout: 5000 }, (t) => {
  const fd = file(t, "pinned", 2);
  const memory = guestMemory(t);
  memory.replace([region(fd, 0, 2)]);
  const [old] = memory.regions;
  old.pin();
  old.pin();

  memory.replace([region(fd, 0, 1)]);
  old.bytes[0] = 42;
  assert.equal(memory.regions[0].bytes[0], 42, "still the same memory");
  assert.equal(countMappings("pinned"), 2);

  old.unpin();
  assert.equal(countMappings("pinned"), 2, "another request still uses it");
  old.unpin();
  assert.equal(countMappings("pinned"), 1);
  assert.equal(old.bytes.length, 0, "a late access fails and does no harm");
});

test("a pin that ends before the region goes away does not unmap it", { timeout: 5000 }, (t) => {
  const memory = guestMemory(t);
  const used = memory.add(region(file(t, "early", 1), 0, 1));
  used.pin();
  used.unpin();
  assert.equal(used.bytes.length, PAGE);
  memory.clear();
  assert.equal(used.bytes.length, 0);
});

test("a request pins every region that it touches", { timeout: 5000 }, (t) => {
  const fd = file(t, "request", 4);
  const memory = guestMemory(t);
  memory.replace([region(fd, 0, 2), region(fd, 2, 2, 2)]);
  const [a, b] = memory.regions;
  const segments = new Segments();
  assert.ok(memory.append(segments, PAGE, 2 * PAGE));

  segments.pin();
  memory.clear();
  assert.deepEqual([a.bytes.length, b.bytes.length], [2 * PAGE, 2 * PAGE]);
  segments.setUint8(0, 1);
  segments.unpin();
  assert.deepEqual([a.bytes.length, b.bytes.length], [0, 0]);
});
