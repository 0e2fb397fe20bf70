import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import {
  type BrokenRing,
  type LogRecord,
  logRecord,
  recordJson,
  recordText,
  type Session,
} from "../../mod.ts";
import { RingError } from "../../mod.ts";
import type { PackedRing } from "../../src/virtqueue/packed_ring.ts";
import { INDIRECT, NEXT, type Ring, WRITE } from "../session/rings.ts";
import { eventually, LIMIT, Scene } from "../session/scene.ts";
import { onStage } from "../session/stage.ts";
import type { SharedMemory } from "../../src/frontend/mod.ts";
import { RawPackedRing } from "../virtqueue/raw_packed_ring.ts";

// What is told of a ring that a driver has broken: the rule, the ring, the descriptor, and nothing of the guest's data.

/** Bytes that are in every buffer of the guest, and must not be in any dump. */
const SECRET = "c0ffee5ec2e7";

interface Told {
  readonly record: LogRecord;
  readonly dump: BrokenRing;
  /** What the hook was called with. */
  readonly hooked: readonly [BrokenRing, unknown][];
}

async function broken(
  t: TestContext,
  commit: (ring: Ring, memory: SharedMemory) => void,
  workers?: number,
): Promise<Told> {
  const records: LogRecord[] = [];
  const hooked: [BrokenRing, unknown][] = [];
  const scene = await Scene.disk(t, {}, {
    workers,
    log: (...entry) => records.push(logRecord(...entry)),
    onSession: (session: Session) => session.onBrokenRing = (...told) => hooked.push(told),
  });
  const { memory, ring: make } = await onStage(t, scene);
  memory.allocate(4096).bytes.set(new TextEncoder().encode(SECRET.repeat(300)));
  const ring = make();
  await ring.start();
  commit(ring, memory);
  await ring.broken();
  await eventually("it is told", () => records.some(({ event }) => event === "ring.broken"));
  const [record] = records.filter(({ event }) => event === "ring.broken");
  assert.ok(record.dump !== undefined);
  assert.equal(scene.server.metrics.rings[0].broken, 1);
  return { record, dump: record.dump, hooked };
}

const kinds: readonly [
  what: string,
  rule: string,
  offending: number | undefined,
  commit: (ring: Ring, memory: SharedMemory) => void,
][] = [
  ["a loop", "2.7.5.2", 2, (ring, { guestAddress: address }) => {
    ring.describe(2, { address, length: 16, flags: NEXT, next: 3 });
    ring.describe(3, { address, length: 16, flags: NEXT, next: 2 });
    ring.send(2);
  }],
  ["a head past the end", "2.7.6", undefined, (ring) => ring.send(8)],
  ["a next past the end", "2.7.5", 5, (ring, { guestAddress: address }) => {
    ring.describe(2, { address, length: 16, flags: NEXT, next: 5 });
    ring.describe(5, { address, length: 16, flags: NEXT, next: 77 });
    ring.send(2);
  }],
  ["an index that goes back", "2.7.6.1", undefined, (ring) => {
    ring.offeredIndex = 0xffff;
    ring.send();
  }],
  ["a buffer that is nowhere", "2.7.5", 7, (ring) => {
    ring.describe(7, { address: 0x9_0000_0000, length: 16 });
    ring.send(7);
  }],
  ["readable after writable", "2.7.4.2", 1, (ring, { guestAddress: address }) => {
    ring.describe(0, { address, length: 1, flags: NEXT | WRITE, next: 1 });
    ring.describe(1, { address, length: 16 });
    ring.send(0);
  }],
  ["INDIRECT with NEXT", "2.7.5.3.1", 0, (ring, { guestAddress: address }) => {
    ring.describe(0, { address, length: 16, flags: NEXT | INDIRECT, next: 1 });
    ring.send(0);
  }],
  ["a wrong descriptor in a table", "2.7.5", 3, (ring, memory) => {
    const table = memory.allocate(32, 16);
    ring.describe(0, { address: memory.guestAddress, length: 16, flags: NEXT, next: 1 }, table);
    ring.describe(1, { address: 0x9_0000_0000, length: 16 }, table);
    ring.describe(3, { address: table.guestAddress, length: 32, flags: INDIRECT });
    ring.send(3);
  }],
];

for (const [what, rule, offending, commit] of kinds) {
  test(`${what} is told with its rule and its descriptor`, LIMIT, async (t) => {
    const { record, dump, hooked } = await broken(t, commit);
    assert.equal(dump.rule, `virtio 1.4, ${rule}`);
    assert.ok(record.error instanceof RingError);
    assert.equal(record.error.rule, dump.rule);
    assert.deepEqual([record.level, record.device, record.session, record.ring], ["error", "blk", 1, 0]);
    assert.deepEqual([dump.ring, dump.size, dump.endianness, dump.base], [0, 8, "little", 0]);
    assert.ok(dump.featureNames.includes("INDIRECT_DESC") && dump.featureNames.includes("VERSION_1"));
    assert.match(dump.addresses?.descriptor ?? "", /^0x[0-9a-f]+$/);
    const { state } = dump;
    assert.equal(state?.format, "split");
    assert.equal(state?.fields["device.next"], 0);
    assert.deepEqual(state?.descriptors.filter((each) => each.offending).map(({ index }) => index), [
      ...offending === undefined ? [] : [offending],
    ]);
    if (offending !== undefined) {
      // Two on each side, around the end of the ring too.
      const around = [-2, -1, 0, 1, 2].map((n) => (offending + n + 8) % 8);
      assert.deepEqual(state?.descriptors.map(({ index }) => index), around);
    }
    assert.deepEqual(hooked, [[dump, record.error]]);

    const json = recordJson(record);
    assert.ok(json.length < 4096, `${json.length} bytes`);
    assert.ok(!json.includes("\n"));
    const back = JSON.parse(json);
    assert.deepEqual(back.dump, JSON.parse(JSON.stringify(dump)));
    assert.deepEqual([back.event, back.error.name, back.error.rule], ["ring.broken", "RingError", dump.rule]);
    const text = recordText(record);
    assert.ok(text.includes(`  rule: virtio 1.4, ${rule}\n`), text);
    for (const each of [json, text]) assert.ok(!each.includes(SECRET.slice(0, 6)), each);
  });
}

test("flags and links are spelled out, as the driver wrote them", LIMIT, async (t) => {
  const { record, dump } = await broken(t, (ring) => {
    ring.describe(0, { address: 0x1234, length: 5, flags: WRITE | 0x40 });
    ring.describe(1, {
      address: 0xffff_ffff_ffff_fff0n,
      length: 0xffff_ffff,
      flags: NEXT | INDIRECT,
      next: 9,
    });
    ring.send(1);
  });
  const [, , one] = dump.state?.descriptors ?? [];
  assert.deepEqual(one, {
    index: 1,
    address: "0xfffffffffffffff0",
    length: 0xffff_ffff,
    flags: ["NEXT", "INDIRECT"],
    next: 9,
    offending: true,
  });
  const text = recordText(record);
  assert.match(text, /^ {2}descriptor 0: 0x1234\+5 WRITE 0x40$/m);
  assert.match(text, /^ {2}descriptor 1: 0xfffffffffffffff0\+4294967295 NEXT INDIRECT, next 9 {2}<- here$/m);
  assert.match(text, /^ {2}heads: avail\.ring\[6\] 0, avail\.ring\[7\] 0, avail\.ring\[0\] 1, /m);
  assert.match(
    text,
    /^ {2}split ring, 0 in flight: avail\.flags 0, avail\.idx 1, used\.flags \d, used\.idx 0/m,
  );
});

test("rings in threads tell the same", { timeout: 60_000 }, async (t) => {
  const { dump, hooked } = await broken(t, (ring) => {
    ring.describe(7, { address: 0x9_0000_0000, length: 16 });
    ring.send(7);
  }, 1);
  assert.equal(dump.rule, "virtio 1.4, 2.7.5");
  assert.deepEqual(dump.state?.descriptors.map(({ index }) => index), [5, 6, 7, 0, 1]);
  assert.equal(hooked.length, 1);
});

test("a packed ring is told in its own words", LIMIT, (t) => {
  const ring = new RawPackedRing(t);
  const device: PackedRing = ring.device();
  ring.offer(0, { id: 3, length: 7 });
  ring.offer(1, { address: 0, id: 4, flags: WRITE });
  assert.ok(device.pop() !== null);
  assert.throws(() => device.pop(), (error) => {
    assert.ok(error instanceof RingError);
    assert.deepEqual([error.rule, error.descriptor], ["virtio 1.4, 2.8.13", 1]);
    return true;
  });
  const { format, inFlight, fields, heads, descriptors } = device.dump(1);
  assert.deepEqual([format, inFlight, heads], ["packed", 1, undefined]);
  assert.deepEqual(
    [fields["device.next"], fields["device.next_wrap"], fields["device.used"], fields["device.used_wrap"]],
    [1, 1, 0, 1],
  );
  assert.deepEqual(descriptors.map(({ index, id, flags, offending }) => [index, id, flags, offending]), [
    [7, 0, [], undefined],
    [0, 3, ["AVAIL"], undefined],
    [1, 4, ["WRITE", "AVAIL"], true],
    [2, 0, [], undefined],
    [3, 0, [], undefined],
  ]);
});

for (const size of [1, 2, 3]) {
  test(`a ring of ${size} is shown once around`, LIMIT, (t) => {
    const ring = new RawPackedRing(t, size);
    const indices = ring.device().dump(0).descriptors.map(({ index }) => index).sort();
    assert.deepEqual(indices, Array.from({ length: size }, (_, i) => i));
  });
}

test("a ring whose memory has gone is told without touching it", LIMIT, async (t) => {
  const records: LogRecord[] = [];
  const scene = await Scene.disk(t, {}, { log: (...entry) => records.push(logRecord(...entry)) });
  const { frontEnd, memory, ring: make } = await onStage(t, scene);
  const ring = make();
  await ring.start();
  await frontEnd.unshareMemory(memory);
  await eventually("it is told", () => records.some(({ event }) => event === "ring.broken"));
  const [{ dump }] = records.filter(({ event }) => event === "ring.broken");
  assert.equal(dump?.state, undefined);
  assert.equal(dump?.size, 8);
});
