import assert from "node:assert/strict";
import test from "node:test";
import { inflightRegionSize } from "../../src/virtqueue/inflight.ts";
import { RingError } from "../../src/virtqueue/ring.ts";
import type { SplitRing } from "../../src/virtqueue/split_ring.ts";
import { dieEverywhere } from "./crash.ts";
import { RawRing } from "./raw_ring.ts";

// In-flight tracking of a split ring (vhost-user, "Inflight I/O tracking").

/** A region, byte by byte as the specification lays it out. */
class RawRegion {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;

  constructor(size = 8) {
    this.bytes = new Uint8Array(inflightRegionSize(false, size));
    this.view = new DataView(this.bytes.buffer);
  }

  /** A region that a device has used, with nothing in flight. */
  static used(entries = 8): RawRegion {
    const region = new RawRegion();
    region.view.setUint16(8, 1, true);
    region.view.setUint16(10, entries, true);
    return region;
  }

  get header(): { version: number; descNum: number; lastBatchHead: number; usedIdx: number } {
    const at = (offset: number): number => this.view.getUint16(offset, true);
    return { version: at(8), descNum: at(10), lastBatchHead: at(12), usedIdx: at(14) };
  }

  /** Records a request as in flight. */
  record(head: number, counter: number | bigint): this {
    this.bytes[16 + 16 * head] = 1;
    this.view.setBigUint64(16 + 16 * head + 8, BigInt(counter), true);
    return this;
  }

  entry(head: number): { inflight: number; next: number; counter: bigint } {
    const at = 16 + 16 * head;
    return {
      inflight: this.bytes[at],
      next: this.view.getUint16(at + 6, true),
      counter: this.view.getBigUint64(at + 8, true),
    };
  }

  /** Heads that are recorded as in flight. */
  get inFlight(): number[] {
    return [0, 1, 2, 3, 4, 5, 6, 7].filter((head) => this.entry(head).inflight === 1);
  }
}

/** Offers all heads in order. */
function offerAll(ring: RawRing): RawRing {
  for (let head = 0; head < 8; head++) ring.descriptor(head, { length: head + 1 }).offer(head);
  return ring;
}

function take(device: SplitRing, count: number): number[] {
  return Array.from({ length: count }, () => device.pop()?.head ?? -1);
}

test("regions are as large as those of other back-ends", { timeout: 5000 }, () => {
  for (const size of [1, 2, 3, 4, 7, 8, 100, 128, 256, 1024, 32768]) {
    assert.equal(inflightRegionSize(false, size), Math.ceil((16 * size + 16) / 64) * 64);
    assert.equal(inflightRegionSize(true, size), Math.ceil((32 * size + 29) / 64) * 64);
  }
});

test("a region that nobody has used is made ready", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  ring.availableIndex = ring.usedIndex = 500;
  const region = new RawRegion();
  // Whatever else is in it, version 0 says that it means nothing.
  region.bytes.fill(0xa5);
  region.view.setUint16(8, 0, true);
  const device = ring.device({ base: 500, inflight: region.bytes });
  assert.deepEqual(region.header, { version: 1, descNum: 8, lastBatchHead: 0, usedIdx: 500 });
  assert.deepEqual([...region.bytes.subarray(0, 8)], new Array(8).fill(0));
  assert.deepEqual([region.inFlight, device.base, device.available()], [[], 500, false]);
});

test("requests are recorded while they are in flight", { timeout: 5000 }, (t) => {
  const ring = offerAll(new RawRing(t));
  const region = new RawRegion();
  const device = ring.device({ inflight: region.bytes });
  const [first, second, third] = [device.pop(), device.pop(), device.pop()];
  assert.ok(first && second && third);
  assert.deepEqual(region.inFlight, [0, 1, 2]);
  assert.deepEqual([0, 1, 2].map((head) => region.entry(head).counter), [0n, 1n, 2n]);

  device.push(third);
  device.push(first);
  assert.deepEqual(region.inFlight, [0, 1, 2], "until the driver sees them");
  assert.equal(region.entry(0).next, 2);
  device.publish();
  assert.deepEqual(region.inFlight, [1]);
  assert.deepEqual(region.header, { version: 1, descNum: 8, lastBatchHead: 0, usedIdx: 2 });
});

test(
  "what was in flight is taken first, in the order in which it was taken before",
  { timeout: 5000 },
  (t) => {
    const ring = offerAll(new RawRing(t));
    const region = RawRegion.used().record(5, 11).record(1, 10).record(3, 2 ** 40);
    const device = ring.device({ base: 0x777, inflight: region.bytes });
    // Three were taken and none returned: the fourth that the driver has offered comes next.
    assert.equal(device.base, 3);
    assert.deepEqual([device.available(), device.arm()], [true, true]);
    assert.deepEqual(take(device, 3), [1, 5, 3]);
    assert.throws(() => device.pop(), RingError, "head 3 was not what the driver had offered first");
  },
);

test("counters go on from the highest", { timeout: 5000 }, (t) => {
  const ring = offerAll(new RawRing(t));
  const region = RawRegion.used().record(0, 2 ** 40);
  const device = ring.device({ inflight: region.bytes });
  assert.deepEqual(take(device, 2), [0, 1]);
  assert.deepEqual([0, 1].map((head) => region.entry(head).counter), [1n << 40n, (1n << 40n) + 1n]);
});

test("a batch that was shown but not struck off is struck off", { timeout: 5000 }, (t) => {
  const ring = offerAll(new RawRing(t));
  ring.usedIndex = 2;
  const region = RawRegion.used().record(0, 0).record(1, 1).record(2, 2).record(3, 3);
  // The last batch: head 3, and before it head 1; what that links to belongs to an older batch.
  region.view.setUint16(12, 3, true);
  region.view.setUint16(16 + 16 * 3 + 6, 1, true);
  region.view.setUint16(16 + 16 * 1 + 6, 999, true);
  const device = ring.device({ inflight: region.bytes });
  assert.deepEqual([region.inFlight, region.header.usedIdx], [[0, 2], 2]);
  assert.equal(device.base, 4);
  assert.deepEqual(take(device, 3), [0, 2, 4]);
});

test("a region that has more entries than the ring is as good", { timeout: 5000 }, (t) => {
  const ring = offerAll(new RawRing(t));
  const region = new RawRegion(16);
  region.view.setUint16(8, 1, true);
  region.view.setUint16(10, 16, true);
  region.record(2, 0);
  const device = ring.device({ inflight: region.bytes });
  assert.equal(device.pop()?.head, 2);
  assert.equal(region.header.descNum, 16);
});

test("requests that are taken again are followed as carefully as others", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  ring.descriptor(2, { address: 0 });
  const device = ring.device({ inflight: RawRegion.used().record(2, 0).bytes });
  for (let attempt = 0; attempt < 2; attempt++) {
    assert.throws(() => device.pop(), { name: "RingError", message: /is not in guest memory$/ });
  }
  assert.equal(device.inFlight, 0);
});

/** A region that makes no sense is refused, and left as it was. */
function refuses(what: string, spoil: (region: RawRegion, ring: RawRing) => void, text: string): void {
  test(what, { timeout: 5000 }, (t) => {
    const ring = new RawRing(t);
    const region = RawRegion.used().record(0, 0).record(4, 1);
    spoil(region, ring);
    const before = region.bytes.slice();
    assert.throws(() => ring.device({ inflight: region.bytes }), {
      name: "RingError",
      message: `in-flight region: ${text}`,
    });
    assert.deepEqual(region.bytes, before);
  });
}

refuses("a feature that nobody knows", ({ bytes }) => {
  bytes[4] = 1;
}, "features must be 0, got 0x100000000");

refuses("a version that nobody knows", ({ view }) => {
  view.setUint16(8, 2, true);
}, "version must be 1, got 2");

refuses("too few entries", ({ view }) => {
  view.setUint16(10, 7, true);
}, "desc_num must be from 8, as the ring has, to 11, as find room, got 7");

refuses("more entries than there is room for", ({ view }) => {
  view.setUint16(10, 12, true);
}, "desc_num must be from 8, as the ring has, to 11, as find room, got 12");

refuses("a flag that is neither 0 nor 1", ({ bytes }) => {
  bytes[16 + 16 * 6] = 2;
}, "inflight of entry 6 must be 0 or 1, got 2");

refuses("an entry that is in flight although the ring has no such head", (region) => {
  region.view.setUint16(10, 10, true);
  region.record(9, 0);
}, "entry 9 must be free, in a ring of 8, got in flight");

refuses("a counter that is too large to count on", (region) => {
  region.record(4, (1n << 53n) - 1n);
}, "counter of entry 4 must be below 2^53, got 9007199254740991");

refuses("a batch of more requests than the ring has", ({ view }, ring) => {
  ring.usedIndex = 3;
  view.setUint16(14, 0xfffa, true);
}, "used_idx must be at most 8 behind the ring's used index 3, got 65530");

refuses("a used index that is ahead of the ring's", ({ view }) => {
  view.setUint16(14, 1, true);
}, "used_idx must be at most 8 behind the ring's used index 0, got 1");

refuses("a batch that starts outside the table", ({ view }, ring) => {
  ring.usedIndex = 1;
  view.setUint16(12, 8, true);
}, "last_batch_head must be below 8, got 8");

refuses("a batch that goes on outside the table", ({ view }, ring) => {
  ring.usedIndex = 2;
  view.setUint16(12, 4, true);
  view.setUint16(16 + 16 * 4 + 6, 0xffff, true);
}, "next of entry 4 must be below 8, got 65535");

refuses("a batch that goes round in circles", ({ view }, ring) => {
  ring.usedIndex = 3;
  view.setUint16(12, 4, true);
  view.setUint16(16 + 16 * 4 + 6, 0, true);
  view.setUint16(16 + 16 * 0 + 6, 4, true);
}, "next of entry 0 must be an entry that is not in the batch yet, got 4");

test("a region must have room for the ring, and start where its fields may", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const { buffer } = new Uint8Array(1024);
  assert.throws(() => ring.device({ inflight: { buffer, byteOffset: 0, byteLength: 143 } }), {
    name: "RingError",
    message: "in-flight region: size must be at least 144 bytes for 8 entries, got 143",
  });
  assert.throws(() => ring.device({ inflight: { buffer, byteOffset: 4, byteLength: 512 } }), {
    name: "RingError",
    message: "in-flight region: offset must be a multiple of 8, got 4",
  });
});

for (const inOrder of [false, true]) {
  for (const tableSize of [0, 3]) {
    const how = `${inOrder ? "in order, " : ""}${tableSize > 0 ? "in tables" : "in the ring"}`;
    test(`whenever a device dies, the next one takes what is left (${how})`, { timeout: 30_000 }, () => {
      for (let seed = 0; seed < 50; seed++) {
        const size = [2, 4, 8, 16][seed % 4];
        dieEverywhere({ packed: false, size, eventIdx: seed % 8 < 4, inOrder, tableSize }, seed);
      }
    });
  }
}
