import assert from "node:assert/strict";
import test from "node:test";
import { inflightRegionSize } from "../../src/virtqueue/inflight.ts";
import type { PackedRing } from "../../src/virtqueue/packed_ring.ts";
import { dieEverywhere } from "./crash.ts";
import { AVAIL, NEXT, RawPackedRing, START, USED, WRITE } from "./raw_packed_ring.ts";
import { FREE, GUEST } from "./raw_ring.ts";

// In-flight tracking of a packed ring (vhost-user, "Inflight I/O tracking").

interface Header {
  readonly freeHead: number;
  readonly oldFreeHead: number;
  readonly usedIdx: number;
  readonly oldUsedIdx: number;
  readonly usedWrap: number;
  readonly oldUsedWrap: number;
}

/** A region, byte by byte as the specification lays it out. */
class RawRegion {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;

  constructor(size = 8) {
    this.bytes = new Uint8Array(inflightRegionSize(true, size));
    this.view = new DataView(this.bytes.buffer);
  }

  /** A region that a device has used: entries 0, 1 and 4 are of one request, entry 2 of another, the rest are free. */
  static used(entries = 8): RawRegion {
    const region = new RawRegion(entries);
    region.view.setUint16(8, 1, true);
    region.view.setUint16(10, entries, true);
    region.header = { freeHead: 3, oldFreeHead: 3, usedIdx: 0, oldUsedIdx: 0, usedWrap: 1, oldUsedWrap: 1 };
    region.link(0, 1, 4, 7).request(0, 3, 4, 21n).link(2, 0).request(2, 1, 2, 20n);
    for (const [at, next] of [[3, 5], [5, 6], [6, 7], [7, 8]]) region.link(at, next);
    for (let at = 8; at < entries; at++) region.link(at, at + 1);
    region.copy(0, { id: 0, flags: NEXT, length: 10 }).copy(1, { id: 0, flags: NEXT, length: 11 });
    region.copy(4, { id: 9, flags: WRITE, length: 12 }).copy(2, { id: 8, flags: 0, length: 13 });
    return region;
  }

  #u16(at: number, value: number): void {
    this.view.setUint16(at, value, true);
  }

  get version(): number {
    return this.view.getUint16(8, true);
  }

  get descNum(): number {
    return this.view.getUint16(10, true);
  }

  set header({ freeHead, oldFreeHead, usedIdx, oldUsedIdx, usedWrap, oldUsedWrap }: Header) {
    [freeHead, oldFreeHead, usedIdx, oldUsedIdx].forEach((value, i) => this.#u16(12 + 2 * i, value));
    this.bytes[20] = usedWrap;
    this.bytes[21] = oldUsedWrap;
  }

  get header(): Header {
    const [freeHead, oldFreeHead, usedIdx, oldUsedIdx] = [12, 14, 16, 18].map((at) =>
      this.view.getUint16(at, true)
    );
    return {
      freeHead,
      oldFreeHead,
      usedIdx,
      oldUsedIdx,
      usedWrap: this.bytes[20],
      oldUsedWrap: this.bytes[21],
    };
  }

  set(header: Partial<Header>): this {
    this.header = { ...this.header, ...header };
    return this;
  }

  /** Links entries, one after the other. */
  link(...entries: readonly number[]): this {
    for (let i = 1; i < entries.length; i++) this.#u16(32 + 32 * entries[i - 1] + 2, entries[i]);
    return this;
  }

  /** Makes an entry the head of a request in flight. */
  request(head: number, num: number, last: number, counter: bigint): this {
    const at = 32 + 32 * head;
    this.bytes[at] = 1;
    this.#u16(at + 4, last);
    this.#u16(at + 6, num);
    this.view.setBigUint64(at + 8, counter, true);
    return this;
  }

  /** Puts the copy of a descriptor into an entry. */
  copy(entry: number, { id, flags, length }: { id: number; flags: number; length: number }): this {
    const at = 32 + 32 * entry;
    this.#u16(at + 16, id);
    this.#u16(at + 18, flags);
    this.view.setUint32(at + 20, length, true);
    this.view.setBigUint64(at + 24, BigInt(GUEST + FREE), true);
    return this;
  }

  entry(index: number): { inflight: number; next: number; last: number; num: number; counter: bigint } {
    const at = 32 + 32 * index;
    const [next, last, num] = [2, 4, 6].map((field) => this.view.getUint16(at + field, true));
    return { inflight: this.bytes[at], next, last, num, counter: this.view.getBigUint64(at + 8, true) };
  }

  /** The copy of a descriptor in an entry. */
  copied(index: number): { id: number; flags: number; length: number; address: number } {
    const at = 32 + 32 * index;
    return {
      id: this.view.getUint16(at + 16, true),
      flags: this.view.getUint16(at + 18, true),
      length: this.view.getUint32(at + 20, true),
      address: Number(this.view.getBigUint64(at + 24, true)),
    };
  }

  get inFlight(): number[] {
    return [0, 1, 2, 3, 4, 5, 6, 7].filter((index) => this.entry(index).inflight === 1);
  }
}

/** Takes requests; their ids and lengths. */
function take(
  device: PackedRing,
  count: number,
): (readonly [id: number, readable: number, writable: number])[] {
  return Array.from({ length: count }, () => {
    const chain = device.pop();
    assert.ok(chain);
    return [chain.id, chain.readable.byteLength, chain.writable.byteLength];
  });
}

test("a region that nobody has used is made ready", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const region = new RawRegion();
  region.bytes.fill(0xa5);
  region.view.setUint16(8, 0, true);
  const device = ring.device({ base: 0x8005_8006, inflight: region.bytes });
  assert.equal(device.base, 0x8005_8006);
  assert.deepEqual([region.version, region.descNum, region.inFlight], [1, 8, []]);
  assert.deepEqual(region.header, {
    freeHead: 0,
    oldFreeHead: 0,
    usedIdx: 5,
    oldUsedIdx: 5,
    usedWrap: 1,
    oldUsedWrap: 1,
  });
  assert.deepEqual([0, 1, 2, 3, 4, 5, 6, 7].map((i) => region.entry(i).next), [1, 2, 3, 4, 5, 6, 7, 8]);
});

test("requests are recorded with their descriptors while they are in flight", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const region = new RawRegion();
  const device = ring.device({ inflight: region.bytes });
  ring.offer(0, { length: 1, flags: NEXT }).offer(1, { length: 2, flags: WRITE, id: 70 });
  ring.offer(2, { length: 3, id: 71 });
  const [first, second] = [device.pop(), device.pop()];
  assert.ok(first && second);
  assert.deepEqual(region.inFlight, [0, 2]);
  assert.deepEqual(region.entry(0), { inflight: 1, next: 1, last: 1, num: 2, counter: 0n });
  assert.deepEqual(region.entry(2), { inflight: 1, next: 3, last: 2, num: 1, counter: 1n });
  const address = GUEST + FREE;
  assert.deepEqual(region.copied(0), { id: 0, flags: AVAIL | NEXT, length: 1, address });
  assert.deepEqual(region.copied(1), { id: 70, flags: AVAIL | WRITE, length: 2, address });
  assert.deepEqual(region.copied(2), { id: 71, flags: AVAIL, length: 3, address });
  assert.deepEqual([region.header.freeHead, region.header.oldFreeHead], [3, 3]);

  device.push(second);
  assert.deepEqual([region.inFlight, region.header.freeHead], [[0, 2], 3], "until the driver sees it");
  device.publish();
  assert.deepEqual(region.inFlight, [0]);
  assert.deepEqual(region.header, {
    freeHead: 2,
    oldFreeHead: 2,
    usedIdx: 1,
    oldUsedIdx: 1,
    usedWrap: 1,
    oldUsedWrap: 1,
  });
  assert.equal(region.entry(2).next, 3);
});

test("the used position goes round with its wrap counter", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const region = new RawRegion();
  const device = ring.device({ base: 0x8007_8007, inflight: region.bytes });
  ring.offer(7, { flags: NEXT }).offer(0, {}, 2);
  const chain = device.pop();
  assert.ok(chain);
  device.push(chain);
  device.publish();
  assert.deepEqual([region.header.usedIdx, region.header.usedWrap], [1, 0]);
  assert.deepEqual([region.header.oldUsedIdx, region.header.oldUsedWrap], [1, 0]);
});

test("what was in flight is taken first, as it was, in the order in which it was taken before", {
  timeout: 5000,
}, (t) => {
  const ring = new RawPackedRing(t);
  const region = RawRegion.used();
  const device = ring.device({ base: 0x8006_8006, inflight: region.bytes });
  assert.equal(device.base, 0x8000_8004, "four descriptors are in flight");
  assert.deepEqual([device.available(), device.arm()], [true, true]);
  ring.offer(4, { id: 33, length: 1 });
  assert.deepEqual(take(device, 3), [[8, 13, 0], [9, 21, 12], [33, 1, 0]]);
  assert.equal(region.entry(3).counter, 22n, "counters go on from the highest");
  assert.equal(device.pop(), null);
});

test("a batch that was shown but not struck off is struck off", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  // The request of three descriptors was returned; the driver has not looked yet.
  ring.writeDescriptor(0, { id: 9, flags: AVAIL | USED });
  const region = RawRegion.used().set({ freeHead: 0, usedIdx: 3 }).link(4, 3);
  const device = ring.device({ inflight: region.bytes });
  assert.equal(device.base, 0x8003_8004);
  assert.deepEqual(region.inFlight, [2]);
  assert.deepEqual(region.header, {
    freeHead: 0,
    oldFreeHead: 0,
    usedIdx: 3,
    oldUsedIdx: 3,
    usedWrap: 1,
    oldUsedWrap: 1,
  });
  assert.deepEqual(take(device, 1), [[8, 13, 0]]);
});

test("a batch that was not shown is taken back", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  for (let slot = 0; slot < 4; slot++) ring.offer(slot);
  const region = RawRegion.used().set({ freeHead: 0, usedIdx: 3 }).link(4, 3);
  const device = ring.device({ inflight: region.bytes });
  assert.equal(device.base, 0x8000_8004);
  assert.deepEqual([region.inFlight, region.header.freeHead, region.header.usedIdx], [[0, 2], 3, 0]);
  assert.equal(take(device, 2).length, 2);
});

test("flags that a batch has left behind are taken back, too", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  // Two were to be returned: the second had its flags, the first, which shows both, had not.
  ring.offer(0).writeDescriptor(16 * 3, { id: 8, flags: AVAIL | USED | WRITE });
  const device = ring.device({ inflight: RawRegion.used().bytes });
  assert.equal(ring.descriptor(3).flags, AVAIL | WRITE);
  const [first] = [device.pop()];
  assert.ok(first);
  device.push(first);
  device.publish();
  assert.equal(ring.descriptor(0).flags & USED, USED);
  assert.equal(ring.descriptor(1).flags & USED, 0, "the driver sees one");
});

test("a batch of a whole lap changes the wrap counter only", { timeout: 5000 }, (t) => {
  for (const shown of [false, true]) {
    const ring = new RawPackedRing(t, 4);
    for (let slot = 0; slot < 4; slot++) ring.offer(slot, { flags: slot < 3 ? NEXT : 0, id: 5 });
    if (shown) ring.writeDescriptor(0, { id: 5, flags: AVAIL | USED });
    const region = new RawRegion(4);
    region.view.setUint16(8, 1, true);
    region.view.setUint16(10, 4, true);
    region.link(0, 1, 2, 3, 4).request(0, 4, 3, 0n);
    for (let i = 0; i < 4; i++) region.copy(i, { id: 5, flags: i < 3 ? NEXT : 0, length: 1 });
    region.header = { freeHead: 0, oldFreeHead: 4, usedIdx: 0, oldUsedIdx: 0, usedWrap: 0, oldUsedWrap: 1 };
    const device = ring.device({ inflight: region.bytes });
    assert.equal(device.base, shown ? 0x0000_0000 : 0x8000_0000);
    assert.deepEqual(shown ? device.pop() : take(device, 1), shown ? null : [[5, 4, 0]]);
  }
});

test("a region that has more entries than the ring is as good", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device({ inflight: RawRegion.used(20).bytes });
  assert.equal(take(device, 2).length, 2);
});

test("descriptors that are taken again are read as carefully as others", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const region = RawRegion.used();
  region.view.setBigUint64(32 + 32 * 2 + 24, 0n, true);
  const device = ring.device({ inflight: region.bytes });
  for (let attempt = 0; attempt < 2; attempt++) {
    assert.throws(() => device.pop(), { name: "RingError", message: /0x0\+13 is not in guest memory$/ });
  }
  assert.equal(device.inFlight, 0);
});

for (
  const [what, flags, text] of [
    ["fewer", 0, "num of a request must be 1, as it is linked, got 3"],
    ["more", NEXT, ""],
  ] as const
) {
  test(`a request whose descriptors are ${what} than its entries`, { timeout: 5000 }, (t) => {
    const region = RawRegion.used().request(2, 1, 2, 99n);
    region.copy(what === "fewer" ? 0 : 4, { id: 1, flags, length: 1 });
    const device = new RawPackedRing(t).device({ inflight: region.bytes });
    assert.throws(() => device.pop(), {
      name: "RingError",
      message: text === ""
        ? "chain of head 0: more than 3 descriptors, all that are not in flight"
        : `in-flight region: ${text}`,
    });
  });
}

/** A region that makes no sense is refused; it and the ring are left as they were. */
function refuses(what: string, spoil: (region: RawRegion) => void, text: string): void {
  test(what, { timeout: 5000 }, (t) => {
    const ring = new RawPackedRing(t);
    ring.offer(0).writeDescriptor(16, { flags: AVAIL | USED });
    const region = RawRegion.used();
    spoil(region);
    const before = [region.bytes.slice(), ring.bytes.slice()];
    assert.throws(() => ring.device({ inflight: region.bytes }), {
      name: "RingError",
      message: `in-flight region: ${text}`,
    });
    assert.deepEqual([region.bytes, ring.bytes], before);
  });
}

refuses("a feature that nobody knows", ({ bytes }) => {
  bytes[0] = 2;
}, "features must be 0, got 0x2");

refuses("a version that nobody knows", ({ view }) => {
  view.setUint16(8, 0x100, true);
}, "version must be 1, got 256");

refuses("too few entries", ({ view }) => {
  view.setUint16(10, 7, true);
}, "desc_num must be from 8, as the ring has, to 9, as find room, got 7");

refuses("more entries than there is room for", ({ view }) => {
  view.setUint16(10, 10, true);
}, "desc_num must be from 8, as the ring has, to 9, as find room, got 10");

refuses("a used slot that the ring does not have", (region) => {
  region.set({ usedIdx: 8 });
}, "used_idx must be below 8, got 8");

refuses("an old used slot that the ring does not have", (region) => {
  region.set({ oldUsedIdx: 0xffff });
}, "old_used_idx must be below 8, got 65535");

refuses("a wrap counter that is neither 0 nor 1", (region) => {
  region.set({ usedWrap: 2 });
}, "used_wrap_counter must be 0 or 1, got 2");

refuses("an old wrap counter that is neither 0 nor 1", (region) => {
  region.set({ oldUsedWrap: 255 });
}, "old_used_wrap_counter must be 0 or 1, got 255");

refuses("a free list that starts outside", (region) => {
  region.set({ oldFreeHead: 9 });
}, "old_free_head must be below 8, got 9");

refuses("a free list that goes on outside", (region) => {
  region.link(5, 0xfffe);
}, "next of entry 5 must be below 8, got 65534");

refuses("a free list that goes round in circles", (region) => {
  region.link(7, 5);
}, "next of entry 7 must be an entry that nothing else has, got 5");

refuses("a request that goes on outside", (region) => {
  region.link(1, 8);
}, "next of entry 1 must be below 8, got 8");

refuses("a request that goes on in the free list", (region) => {
  region.link(1, 6);
}, "next of entry 1 must be an entry that nothing else has, got 6");

refuses("a request that goes round in circles", (region) => {
  region.link(1, 0);
}, "next of entry 1 must be an entry that nothing else has, got 0");

refuses("requests that share an entry", (region) => {
  region.request(4, 1, 4, 5n);
}, "entry 4 must be an entry that nothing else has, got 4");

refuses("a request without descriptors", (region) => {
  region.request(2, 0, 2, 5n);
}, "num of entry 2 must be from 1 to 5, got 0");

refuses("a request of more descriptors than the ring has", (region) => {
  region.request(0, 9, 4, 5n);
}, "num of entry 0 must be from 1 to 8, got 9");

refuses("a request that does not end where it says", (region) => {
  region.request(0, 3, 1, 5n);
}, "last of entry 0 must be 4, the entry at its end, got 1");

refuses("an entry that is neither free nor of a request", (region) => {
  region.link(6, 8);
}, "entries must be 8, free or of a request, got 7");

refuses("a flag that is neither 0 nor 1", ({ bytes }) => {
  bytes[32 + 32 * 5] = 3;
}, "inflight of entry 5 must be 0 or 1, got 3");

refuses("a counter that is too large to count on", (region) => {
  region.request(2, 1, 2, 1n << 63n);
}, "counter of entry 2 must be below 2^53, got 9223372036854776000");

test("a region must have room for the ring", { timeout: 5000 }, (t) => {
  assert.throws(() => new RawPackedRing(t).device({ inflight: new Uint8Array(287) }), {
    name: "RingError",
    message: "in-flight region: size must be at least 288 bytes for 8 entries, got 287",
  });
  assert.equal(new RawPackedRing(t).device({ inflight: new Uint8Array(288) }).base, START);
});

for (const inOrder of [false, true]) {
  for (const tableSize of [0, 3]) {
    const how = `${inOrder ? "in order, " : ""}${tableSize > 0 ? "in tables" : "in the ring"}`;
    test(`whenever a device dies, the next one takes what is left (${how})`, { timeout: 30_000 }, () => {
      for (let seed = 0; seed < 50; seed++) {
        const size = [3, 7, 8, 16][seed % 4];
        dieEverywhere({ packed: true, size, eventIdx: seed % 8 < 4, inOrder, tableSize }, seed);
      }
    });
  }
}
