import assert from "node:assert/strict";
import { test } from "node:test";
import { BlkRequest } from "../../src/devices/blk/mod.ts";
import { GatedStorage } from "./gated_storage.ts";
import { header, putRead, sectorSurvives } from "./requests.ts";
import { INDIRECT, NEXT, type Ring, view, WRITE } from "./rings.ts";
import { aWhile, eventually, LIMIT, verify } from "./scene.ts";
import { stage } from "./stage.ts";
import type { Piece, SharedMemory } from "../../src/frontend/mod.ts";

/** What a driver may get wrong in a ring of 8 entries, and what is said about it. */
const mistakes: readonly [what: string, commit: (ring: Ring, memory: SharedMemory) => void, said: RegExp][] =
  [
    ["a chain that loops", (ring, memory) => {
      const address = header(memory, BlkRequest.IN, 0).guestAddress;
      for (const [at, next] of [[0, 1], [1, 2], [2, 0]]) {
        ring.describe(at, { address, length: 16, flags: NEXT, next });
      }
      ring.send(0);
    }, /chain of head 0 has a loop: more than 8 descriptors$/],
    ["a descriptor that follows itself", (ring, memory) => {
      ring.describe(5, { address: memory.guestAddress, length: 16, flags: NEXT, next: 5 });
      ring.send(5);
    }, /chain of head 5 has a loop: more than 8 descriptors$/],
    [
      "a head past the end",
      (ring) => ring.send(8),
      /head 8 at available index 0: the table has 8 descriptors$/,
    ],
    [
      "a head far past the end",
      (ring) => ring.send(0xffff),
      /head 65535 at available index 0: the table has 8/,
    ],
    ["a next descriptor past the end", (ring, memory) => {
      ring.describe(2, { address: memory.guestAddress, length: 16, flags: NEXT, next: 8 });
      ring.send(2);
    }, /next descriptor 8 of head 2: the table has 8$/],
    ["an available index too far ahead", (ring) => {
      ring.offer(0);
      ring.offeredIndex = 9;
      ring.send();
    }, /available index 9 is 9 ahead of 0, more than the ring's 8 entries$/],
    ["an available index that goes back", (ring) => {
      ring.offeredIndex = 0xffff;
      ring.send();
    }, /available index 65535 is 65535 ahead of 0/],
    ["a buffer outside guest memory", (ring) => {
      ring.describe(0, { address: 0x9_0000_0000, length: 16 });
      ring.send(0);
    }, /descriptor 0 of head 0: 0x900000000\+16 is not in guest memory$/],
    ["a buffer that leaves guest memory", (ring, memory) => {
      ring.describe(0, { address: memory.guestAddress + memory.byteLength - 8, length: 16, flags: WRITE });
      ring.send(0);
    }, /descriptor 0 of head 0: 0x[0-9a-f]+\+16 is not in guest memory$/],
    ["a buffer at the end of 64 bits", (ring) => {
      ring.describe(0, { address: 0xffff_ffff_ffff_fff0n, length: 0xffff_ffff });
      ring.send(0);
    }, /descriptor 0 of head 0: 0x[0-9a-f]+\+4294967295 is not in guest memory$/],
    ["readable after writable", (ring, memory) => {
      const address = memory.guestAddress;
      ring.describe(0, { address, length: 1, flags: NEXT | WRITE, next: 1 });
      ring.describe(1, { address, length: 16 });
      ring.send(0);
    }, /descriptor 1 of head 0: readable after writable$/],
    ["INDIRECT together with NEXT", (ring, memory) => {
      ring.describe(0, { address: memory.guestAddress, length: 16, flags: NEXT | INDIRECT, next: 1 });
      ring.send(0);
    }, /descriptor 0: INDIRECT together with NEXT$/],
    ["an indirect table of half a descriptor", (ring, memory) => {
      ring.describe(0, { address: memory.guestAddress, length: 24, flags: INDIRECT });
      ring.send(0);
    }, /indirect table of 24 bytes: must be a multiple of 16, more than 0$/],
    ["an empty indirect table", (ring, memory) => {
      ring.describe(0, { address: memory.guestAddress, length: 0, flags: INDIRECT });
      ring.send(0);
    }, /indirect table of 0 bytes/],
    ["an indirect table outside guest memory", (ring) => {
      ring.describe(0, { address: 0x9_0000_0000, length: 32, flags: INDIRECT });
      ring.send(0);
    }, /0x900000000.* not in guest memory$/],
    ["an indirect table in a table", (ring, memory) => {
      indirect(ring, memory, [{ flags: INDIRECT }]);
    }, /nested table/],
    ["an indirect table that loops", (ring, memory) => {
      indirect(ring, memory, [{ flags: NEXT, next: 1 }, { flags: NEXT, next: 0 }]);
    }, /indirect table at descriptor 0 has a loop/],
    ["a next descriptor past the end of its table", (ring, memory) => {
      indirect(ring, memory, [{ flags: NEXT, next: 2 }, {}]);
    }, /next descriptor 2 in an indirect table of 2$/],
  ];

/** Sends descriptors in a table of their own. */
function indirect(
  ring: Ring,
  memory: SharedMemory,
  entries: readonly { flags?: number; next?: number }[],
): Piece {
  const table = memory.allocate(16 * entries.length, 16);
  const address = memory.guestAddress;
  entries.forEach((entry, at) => ring.describe(at, { address, length: 16, ...entry }, table));
  ring.describe(0, { address: table.guestAddress, length: table.bytes.length, flags: INDIRECT });
  ring.send(0);
  return table;
}

for (const [what, commit, said] of mistakes) {
  test(`${what} breaks that ring alone, until it is set up anew`, LIMIT, async (t) => {
    const { scene, frontEnd, memory, ring: make } = await stage(t);
    const ring = make();
    await ring.start();
    const other = await frontEnd.startQueue(1, memory, { size: 8 });
    const driver = await scene.driver();

    commit(ring, memory);
    await ring.broken();
    await scene.log.problem(
      new RegExp(`^error: blk: ring 0 is broken and stands still: RingError: .*${said.source}`),
    );
    assert.equal(ring.usedIndex, 0);
    assert.equal(await sectorSurvives(other, memory, 1), true);
    await verify(driver, 1);

    assert.equal(await ring.stop(), 0, "it stands before the request that broke it");
    const again = make();
    await again.start();
    again.send(putRead(again, memory, 1, 0).head);
    await again.until(1);
    assert.deepEqual(scene.log.problems, []);
  });
}

test("a head made available again before it was returned breaks the ring", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { scene, memory, ring: make } = await stage(t, { storage });
  const ring = make();
  await ring.start();
  const { head, status } = putRead(ring, memory, 0, 0);
  ring.send(head);
  await eventually("the request is with the storage", () => storage.held.length === 1);
  ring.send(head);
  await ring.broken();
  await scene.log.problem(/ring 0 is broken .*head 0 was made available again before it was returned$/);
  // What was under way is finished, and stopping waits for it.
  const stopped = ring.stop();
  await aWhile();
  storage.release();
  assert.equal(await stopped, 1);
  assert.equal(status.bytes[0], 0);
});

test("what came before the mistake is done and returned", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  const { head, status } = putRead(ring, memory, 0, 0);
  ring.send(head, 8);
  await ring.broken();
  assert.equal(ring.usedIndex, 1);
  assert.deepEqual(ring.returned(0), { head, written: 513 });
  assert.equal(status.bytes[0], 0);
  assert.equal(await ring.stop(), 1);
});

test("a broken ring stays quiet, whatever is kicked, enabled or replaced", LIMIT, async (t) => {
  const { scene, memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  ring.send(8);
  await ring.broken();
  await scene.log.problem(/ring 0 is broken/);
  ring.send(putRead(ring, memory, 0, 0).head);
  await ring.enable(false);
  await ring.enable();
  await ring.setKick();
  await ring.setCall();
  await aWhile();
  assert.equal(ring.usedIndex, 0);
  assert.deepEqual(scene.log.problems, []);
});

test("an indirect table is refused when INDIRECT_DESC was not accepted", LIMIT, async (t) => {
  const { scene, memory, ring: make } = await stage(t, { withoutFeatures: 1n << 28n });
  const ring = make();
  await ring.start();
  indirect(ring, memory, [{}]);
  await ring.broken();
  await scene.log.problem(/ring 0 is broken .*descriptor 0: INDIRECT was not negotiated$/);
});

test("WRITE on the descriptor of an indirect table means nothing", LIMIT, async (t) => {
  const { memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  const { status } = putRead(ring, memory, 0, 0);
  const table = memory.allocate(48, 16);
  table.bytes.set(ring.descriptor.bytes.subarray(0, 48));
  view(table).setUint16(14, 1, true);
  ring.describe(6, { address: table.guestAddress, length: 48, flags: INDIRECT | WRITE });
  ring.send(6);
  await ring.until(1);
  assert.deepEqual(ring.returned(0), { head: 6, written: 513 });
  assert.equal(status.bytes[0], 0);
});

test("a ring may break again and again", LIMIT, async (t) => {
  const { scene, memory, ring: make } = await stage(t);
  for (let round = 0; round < 10; round++) {
    const ring = make();
    await ring.start();
    ring.send(putRead(ring, memory, 0, round).head, 0x1234);
    await ring.broken();
    await scene.log.problem(/ring 0 is broken .*head 4660 at available index 1/);
    assert.equal(await ring.stop(), 1);
  }
});
