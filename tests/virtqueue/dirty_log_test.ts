import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Mapping, memoryFile } from "../../ffi/mapping.ts";
import { close } from "../../ffi/fd.ts";
import { DirtyLog, LOG_PAGE } from "../../src/memory/dirty_log.ts";
import { onEnd } from "../support/cleanup.ts";
import { NEXT, RawPackedRing } from "./raw_packed_ring.ts";
import { FREE, GUEST, RawRing, WRITE } from "./raw_ring.ts";

// What a device has written is marked for live migration (vhost-user, "Migration").

/** A log, and what is in it. */
class Pages {
  readonly log: DirtyLog;
  readonly #bytes: Uint8Array<ArrayBuffer>;

  constructor(byteLength: number) {
    this.#bytes = new Uint8Array(byteLength);
    this.log = new DirtyLog(this.#bytes);
  }

  /** The pages that are marked. They are taken out, as a front-end does. */
  take(): number[] {
    const pages: number[] = [];
    this.#bytes.forEach((byte, at) => {
      for (let bit = 0; bit < 8; bit++) if ((byte >> bit & 1) === 1) pages.push(8 * at + bit);
    });
    this.#bytes.fill(0);
    return pages;
  }
}

/** Enough for all of the guest's memory in these tests, whose first page has number 256. */
function pages(): Pages {
  return new Pages(64);
}

/** The page that a byte of the guest's memory is in, counted from its start. */
function page(offset: number): number {
  return Math.floor((GUEST + offset) / LOG_PAGE);
}

test("each page has a bit, the lowest first", { timeout: 5000 }, () => {
  const { log } = new Pages(4);
  assert.equal(log.dirty, false);
  const bytes = new Uint8Array(4);
  const shared = new DirtyLog(bytes);
  shared.mark(0, 1);
  shared.mark(LOG_PAGE * 9, LOG_PAGE);
  assert.deepEqual([...bytes], [0b1, 0b10, 0, 0]);
  shared.mark(LOG_PAGE * 2 - 1, 2);
  assert.deepEqual([...bytes], [0b111, 0b10, 0, 0], "what was there stays");
  assert.equal(shared.dirty, true);
  shared.dirty = false;
  shared.mark(5, 0);
  assert.equal(shared.dirty, false, "nothing is no page");
});

test("whatever range is marked, its pages are, as far as the log goes", { timeout: 20_000 }, () => {
  fc.assert(
    fc.property(fc.nat(20), fc.nat(200_000), fc.nat(300_000), (bytes, address, length) => {
      const pages = new Pages(bytes);
      pages.log.mark(address, length);
      const expected: number[] = [];
      for (let n = 0; n < bytes * 8; n++) {
        if (length > 0 && n * LOG_PAGE < address + length && (n + 1) * LOG_PAGE > address) expected.push(n);
      }
      assert.equal(pages.log.dirty, expected.length > 0);
      assert.deepEqual(pages.take(), expected);
    }),
    { seed: 0x5eed, numRuns: 500 },
  );
});

test("what the log has no bits for is dropped", { timeout: 5000 }, () => {
  const pages = new Pages(2);
  for (const address of [16 * LOG_PAGE, 2 ** 53, Number(0xffff_ffff_ffff_f000n), Infinity, NaN]) {
    pages.log.mark(address, LOG_PAGE);
  }
  assert.deepEqual(pages.take(), []);
  pages.log.mark(15 * LOG_PAGE, 2 ** 40);
  assert.deepEqual(pages.take(), [15]);
});

test("marks in a log that was unmapped are dropped", { timeout: 5000 }, (t) => {
  const fd = memoryFile("log", 4096);
  onEnd(t, () => close(fd));
  const mapping = new Mapping(fd, 4096);
  const log = new DirtyLog(new Uint8Array(mapping.buffer));
  log.mark(0, 1);
  mapping.unmap();
  log.mark(0, 1);
});

test("split: what may have been written is marked when it is returned", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  const marked = pages();
  ring.descriptor(0, { address: GUEST + 0x3000, length: 16, flags: NEXT, next: 1 });
  ring.descriptor(1, { address: GUEST + 0x4ff0, length: 32, flags: WRITE | NEXT, next: 2 });
  ring.descriptor(2, { address: GUEST + 0x8000, length: 1, flags: WRITE });
  for (const log of [undefined, marked.log]) {
    device.log = log;
    ring.offer(0);
    const chain = device.pop();
    assert.ok(chain);
    assert.deepEqual(marked.take(), []);
    // A disk tells of one byte, and has written the last.
    chain.written = 1;
    device.push(chain);
    assert.deepEqual(marked.take(), log === undefined ? [] : [page(0x4000), page(0x5000), page(0x8000)]);
    device.publish();
    assert.deepEqual(marked.take(), [], "the ring itself is not, unless that was asked for");
  }
});

test("split: what the ring writes is marked at its log address", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  const marked = pages();
  device.log = marked.log;
  // Elements are 8 bytes each from byte 4 on: with this address, two lie in the page before.
  device.logUsed = GUEST + 0x6000 - 4 - 2 * 8;
  for (let head = 0; head < 8; head++) ring.descriptor(head);
  const serve = (count: number): void => {
    for (let i = 0; i < count; i++) {
      ring.offer(i);
      const chain = device.pop();
      assert.ok(chain);
      device.push(chain);
    }
    assert.deepEqual(marked.take(), [], "nothing that the driver can see yet");
    device.publish();
  };
  serve(2);
  assert.deepEqual(marked.take(), [page(0x5000)], "index and elements");
  serve(1);
  assert.deepEqual(marked.take(), [page(0x5000), page(0x6000)], "the index is in the page before");
  serve(6);
  assert.deepEqual(marked.take(), [page(0x5000), page(0x6000)], "round the end");

  device.suppress();
  assert.deepEqual(marked.take(), [page(0x5000)], "flags");
  device.arm();
  assert.deepEqual(marked.take(), [page(0x5000)], "flags");
  const indexed = ring.device({ eventIdx: true, base: device.base });
  indexed.log = marked.log;
  indexed.logUsed = GUEST + 0x6000 - 4 - 8 * 8;
  indexed.suppress();
  assert.deepEqual(marked.take(), []);
  indexed.arm();
  assert.deepEqual(marked.take(), [page(0x6000)], "the event's index");
});

test("split: the element's page is marked although the batch goes round the end of the ring", {
  timeout: 5000,
}, (t) => {
  const ring = new RawRing(t);
  ring.usedIndex = ring.availableIndex = 7;
  const device = ring.device({ base: 7 });
  const marked = pages();
  device.log = marked.log;
  device.logUsed = GUEST + 0x6000 - 4 - 4 * 8;
  for (const head of [0, 1]) {
    ring.descriptor(head).offer(head);
    const chain = device.pop();
    assert.ok(chain);
    device.push(chain);
  }
  device.publish();
  assert.deepEqual(marked.take(), [page(0x5000), page(0x6000)]);
});

test("split: a ring whose log address lies outside the log", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  const marked = pages();
  device.log = marked.log;
  device.logUsed = 2 ** 53;
  ring.descriptor(0).offer(0);
  const chain = device.pop();
  assert.ok(chain);
  device.push(chain);
  device.publish();
  assert.deepEqual(marked.take(), []);
});

test("packed: what may have been written is marked when it is returned", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device({ inOrder: true });
  const marked = pages();
  device.log = marked.log;
  ring.offer(0, { address: GUEST + FREE, length: 4, flags: NEXT });
  ring.offer(1, { address: GUEST + 0x5000, length: 0x3000, flags: WRITE });
  ring.offer(2, { address: GUEST + 0x9000, length: 1, flags: WRITE });
  const [first, second] = [device.pop(), device.pop()];
  assert.ok(first && second);
  device.push(second);
  device.push(first);
  assert.deepEqual(marked.take(), [5, 6, 7, 9].map((n) => page(n * 0x1000)));
  device.publish();
  assert.deepEqual(marked.take(), []);
});

test("packed: what the ring writes is marked where it is", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device({ eventIdx: true });
  const [region] = ring.memory.regions;
  // Slots 0 to 3 in one page, 4 to 7 in the next.
  const at = 0x6000 - 4 * 16;
  device.bind({
    descriptor: { region, offset: at },
    available: { region, offset: 0x7000 },
    used: { region, offset: 0x8000 },
  });
  const marked = pages();
  device.log = marked.log;
  device.logUsed = 0;
  const serve = (slots: readonly number[], lap: number): number[] => {
    for (const slot of slots) {
      const owner = lap % 2 === 1 ? 0x80 : 0x8000;
      ring.writeDescriptor(at + 16 * slot, { flags: owner });
      const chain = device.pop();
      assert.ok(chain);
      device.push(chain);
    }
    assert.deepEqual(marked.take(), [], "nothing that the driver can see yet");
    device.publish();
    return marked.take();
  };
  assert.deepEqual(serve([0, 1], 1), [page(0x5000)]);
  assert.deepEqual(serve([2, 3, 4], 1), [page(0x5000), page(0x6000)]);
  assert.deepEqual(serve([5, 6, 7], 1), [page(0x6000)]);
  assert.deepEqual(serve([0, 1, 2, 3, 4, 5, 6], 2), [page(0x5000), page(0x6000)]);
  ring.writeDescriptor(at + 16 * 7, { flags: 0x8000 });
  const last = device.pop();
  assert.ok(last);
  device.push(last);
  assert.deepEqual(serve([0], 3), [page(0x5000), page(0x6000)], "round the end");

  device.suppress();
  assert.deepEqual(marked.take(), [page(0x8000)]);
  device.suppress();
  assert.deepEqual(marked.take(), [], "nothing was written");
  device.arm();
  assert.deepEqual(marked.take(), [page(0x8000)]);
});
