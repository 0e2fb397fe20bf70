import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { SharedMemory } from "../../src/frontend/mod.ts";
import { BlkRequest, FileStorage } from "../../src/devices/blk/mod.ts";
import { tempDir } from "../support/cleanup.ts";
import { Random } from "../support/random.ts";
import { header, statusByte } from "../session/requests.ts";
import { INDIRECT, NEXT, type Ring, WRITE } from "../session/rings.ts";
import { bytesOf, LIMIT, sameBytes } from "../session/scene.ts";
import { type Stage, stage } from "../session/stage.ts";

const MIB = 1 << 20;

/** Lengths that add up to a whole, none of them 0. */
function lengths(count: number, whole: number): number[] {
  const random = new Random(count);
  const cuts = new Set<number>();
  while (cuts.size < count - 1) cuts.add(random.int(1, whole - 1));
  const sorted = [0, ...[...cuts].sort((a, b) => a - b), whole];
  return sorted.slice(1).map((each, i) => each - sorted[i]);
}

/** Sends a request whose data lies in many segments, described in a table of its own. Returns the status byte's place. */
function send(
  ring: Ring,
  memory: SharedMemory,
  type: number,
  segments: number,
  data: number,
  whole: number,
): Uint8Array {
  const table = memory.allocate(16 * (segments + 2), 16);
  const status = statusByte(memory);
  ring.describe(
    0,
    { address: header(memory, type, 0).guestAddress, length: 16, flags: NEXT, next: 1 },
    table,
  );
  let at = data;
  lengths(segments, whole).forEach((length, i) => {
    const flags = NEXT | (type === BlkRequest.IN ? WRITE : 0);
    ring.describe(1 + i, { address: at, length, flags, next: i + 2 }, table);
    at += length;
  });
  ring.describe(segments + 1, { address: status.guestAddress, length: 1, flags: WRITE }, table);
  ring.describe(0, { address: table.guestAddress, length: table.bytes.length, flags: INDIRECT });
  ring.send(0);
  return status.bytes;
}

async function fileStage(t: TestContext): Promise<Stage & { path: string; room: SharedMemory }> {
  const path = join(tempDir(t), "disk");
  writeFileSync(path, bytesOf(1, MIB));
  const all = await stage(t, { storage: new FileStorage(path) });
  const room = all.scene.memory(MIB, 0x6000_0000);
  await all.frontEnd.shareMemory(room);
  return { ...all, path, room };
}

// One call of preadv takes 1024 pieces.
for (const segments of [1022, 1023, 1024, 1025, 2046]) {
  test(`${segments} segments in one request, in a ring of 2048`, LIMIT, async (t) => {
    const { path, room, memory, ring: make } = await fileStage(t);
    const ring = make({ size: 2048 });
    await ring.start();
    const read = send(ring, memory, BlkRequest.IN, segments, room.guestAddress, MIB);
    await ring.until(1);
    assert.equal(read[0], 0);
    assert.deepEqual(ring.returned(0), { head: 0, written: MIB + 1 });
    sameBytes(room.piece(0, MIB).bytes.slice(), bytesOf(1, MIB));

    room.piece(0, MIB).bytes.set(bytesOf(2, MIB));
    const written = send(ring, memory, BlkRequest.OUT, segments, room.guestAddress, MIB);
    await ring.until(2);
    assert.equal(written[0], 0);
    sameBytes(new Uint8Array(readFileSync(path)), bytesOf(2, MIB));
  });
}

test("a small ring may have tables of 1024, as Linux makes them, but no longer ones", LIMIT, async (t) => {
  const { scene, room, memory, ring: make } = await fileStage(t);
  const ring = make({ size: 8 });
  await ring.start();
  const read = send(ring, memory, BlkRequest.IN, 1022, room.guestAddress, MIB);
  await ring.until(1);
  assert.equal(read[0], 0);
  sameBytes(room.piece(0, MIB).bytes.slice(), bytesOf(1, MIB));
  send(ring, memory, BlkRequest.IN, 1023, room.guestAddress, MIB);
  await ring.broken();
  await scene.log.problem(/ring 0 is broken .*indirect table .* too long: more than 1024 descriptors$/);
  assert.equal(await ring.stop(), 1);
});

test("a chain that is as long as its ring", LIMIT, async (t) => {
  const { room, memory, ring: make } = await fileStage(t);
  const ring = make({ size: 1024 });
  await ring.start();
  const status = statusByte(memory);
  ring.describe(0, {
    address: header(memory, BlkRequest.IN, 0).guestAddress,
    length: 16,
    flags: NEXT,
    next: 1,
  });
  for (let at = 1; at < 1023; at++) {
    const address = room.guestAddress + 512 * (at - 1);
    ring.describe(at, { address, length: 512, flags: NEXT | WRITE, next: at + 1 });
  }
  ring.describe(1023, { address: status.guestAddress, length: 1, flags: WRITE });
  ring.send(0);
  await ring.until(1);
  assert.equal(status.bytes[0], 0);
  sameBytes(room.piece(0, 1022 * 512).bytes.slice(), bytesOf(1, MIB).slice(0, 1022 * 512));
});
