import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { Iotlb, type IotlbEntry, IotlbMiss } from "../../src/memory/iotlb.ts";
import { Segments } from "../../src/memory/segments.ts";
import { file, guestMemory, PAGE, region, USER } from "./memory_file.ts";

const BOTH = 3;

/** 8 pages of guest memory in two regions, and an empty IOTLB before them. */
function iotlb(t: TestContext, guestAddresses = false): Iotlb {
  const memory = guestMemory(t);
  const fd = file(t, "iotlb", 8);
  memory.replace([region(fd, 0, 4), region(fd, 4, 4, 4)]);
  return new Iotlb(memory, guestAddresses);
}

/** An entry of whole pages: from an I/O page to a page of guest memory. */
function entry(iovaPage: number, pages: number, page: number, permission = BOTH): IotlbEntry {
  return { iova: iovaPage * PAGE, size: pages * PAGE, address: USER + page * PAGE, permission };
}

function missing(run: () => unknown, iova: number, access: number): void {
  assert.throws(run, (error) => {
    assert.ok(error instanceof IotlbMiss, String(error));
    assert.deepEqual([error.name, error.iova, error.access], ["IotlbMiss", iova, access]);
    return true;
  });
}

test("what has no entry is missed: at which address, and for what", { timeout: 5000 }, (t) => {
  const tlb = iotlb(t);
  missing(() => tlb.append(new Segments(), 5, 1, false), 5, 1);
  tlb.update(entry(100, 1, 0));
  missing(() => tlb.append(new Segments(), 100 * PAGE, PAGE + 1, true), 101 * PAGE, 2);
});

test("an entry leads to the guest's memory by way of the front-end's addresses", { timeout: 5000 }, (t) => {
  const tlb = iotlb(t);
  tlb.update(entry(100, 2, 5));
  const segments = new Segments();
  assert.equal(tlb.append(segments, 100 * PAGE + 7, 3, true), true);
  segments.setUint8(0, 42);
  assert.equal(tlb.memory.find(5 * PAGE)?.bytes[PAGE + 7], 42);
});

test("or by the guest's own, where that was negotiated", { timeout: 5000 }, (t) => {
  const tlb = iotlb(t, true);
  tlb.update({ ...entry(100, 1, 0), address: 2 * PAGE });
  const segments = new Segments();
  assert.equal(tlb.append(segments, 100 * PAGE, 1, true), true);
  segments.setUint8(0, 42);
  assert.equal(tlb.memory.find(0)?.bytes[2 * PAGE], 42);
});

test("neighbouring entries need not be neighbours in memory", { timeout: 5000 }, (t) => {
  const tlb = iotlb(t);
  tlb.update(entry(100, 1, 6));
  tlb.update(entry(101, 1, 1));
  const segments = new Segments();
  assert.equal(tlb.append(segments, 101 * PAGE - 2, 4, true), true);
  segments.copyFrom(new Uint8Array([1, 2, 3, 4]));
  const last = tlb.memory.find(4 * PAGE)?.bytes.slice(3 * PAGE - 2, 3 * PAGE);
  const first = tlb.memory.find(0)?.bytes.slice(PAGE, PAGE + 2);
  assert.deepEqual([...last ?? [], ...first ?? []], [1, 2, 3, 4]);
});

test("an entry across two regions is cut where they meet", { timeout: 5000 }, (t) => {
  const tlb = iotlb(t);
  tlb.update(entry(100, 2, 3));
  const segments = new Segments();
  assert.equal(tlb.append(segments, 100 * PAGE, 2 * PAGE, false), true);
  assert.deepEqual([segments.count, segments.byteLength], [2, 2 * PAGE]);
});

test("an entry that points outside guest memory leads nowhere", { timeout: 5000 }, (t) => {
  const tlb = iotlb(t);
  tlb.update(entry(100, 2, 7));
  assert.equal(tlb.append(new Segments(), 100 * PAGE, PAGE, false), true);
  assert.equal(tlb.append(new Segments(), 100 * PAGE, PAGE + 1, false), false);
});

test("a right that is not there is missed as an entry is", { timeout: 5000 }, (t) => {
  const tlb = iotlb(t);
  tlb.update(entry(1, 1, 0, 1));
  tlb.update(entry(2, 1, 0, 2));
  tlb.update(entry(3, 1, 0, 0));
  assert.equal(tlb.append(new Segments(), PAGE, 1, false), true);
  missing(() => tlb.append(new Segments(), PAGE, 1, true), PAGE, 2);
  assert.equal(tlb.append(new Segments(), 2 * PAGE, 1, true), true);
  missing(() => tlb.append(new Segments(), 2 * PAGE, 1, false), 2 * PAGE, 1);
  missing(() => tlb.append(new Segments(), 3 * PAGE, 1, false), 3 * PAGE, 1);
});

test("entries are kept until they are cleared", { timeout: 5000 }, (t) => {
  const tlb = iotlb(t);
  for (let i = 0; i < 300; i++) tlb.update({ iova: i * 2, size: 1, address: USER, permission: BOTH });
  assert.equal(tlb.size, 300);
  assert.equal(tlb.lookup(0)?.iova, 0);
  assert.equal(tlb.lookup(1), undefined);
  tlb.clear();
  assert.equal(tlb.size, 0);
  assert.equal(tlb.lookup(0), undefined);
});

test("updates and invalidations do what a page table would", { timeout: 10_000 }, (t) => {
  const tlb = iotlb(t);
  const pages = 16;
  const range = fc.tuple(fc.nat(pages - 1), fc.integer({ min: 1, max: 5 }));
  const steps = fc.array(fc.tuple(fc.boolean(), range, fc.nat(3)), { maxLength: 30 });
  fc.assert(
    fc.property(steps, (script) => {
      tlb.clear();
      const table: (string | undefined)[] = new Array(pages + 5).fill(undefined);
      // What overlaps goes away whole, not in part.
      const drop = (from: number, count: number): boolean => {
        const owners = new Set(table.slice(from, from + count).filter((each) => each !== undefined));
        table.forEach((owner, i) => {
          if (owner !== undefined && owners.has(owner)) table[i] = undefined;
        });
        return owners.size > 0;
      };
      script.forEach(([add, [from, count], permission], step) => {
        const overlapped = drop(from, count);
        if (add) {
          tlb.update({ iova: from * PAGE, size: count * PAGE, address: USER + step, permission });
          table.fill(`${step}`, from, from + count);
        } else {
          assert.equal(tlb.invalidate(from * PAGE, count * PAGE), overlapped);
        }
        const looked = table.map((_, i) => tlb.lookup(i * PAGE + 17)).map((each) =>
          each && `${each.address - USER}`
        );
        assert.deepEqual(looked, table);
      });
      assert.equal(tlb.size, new Set(table.filter((each) => each !== undefined)).size);
    }),
    { seed: 0x5eed, numRuns: 300 },
  );
});
