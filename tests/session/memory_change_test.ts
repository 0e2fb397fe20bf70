import assert from "node:assert/strict";
import { test } from "node:test";
import { type FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import type { MemoryRegion } from "../../src/protocol/mod.ts";
import { BlkRequest } from "../../src/devices/blk/mod.ts";
import { noteDescriptors } from "./descriptors.ts";
import { GatedStorage } from "./gated_storage.ts";
import { blk, buffer, header, putRead, sectorSurvives, statusByte } from "./requests.ts";
import { aWhile, bytesOf, eventually, LIMIT, sameBytes, verify } from "./scene.ts";
import { stage } from "./stage.ts";

function region(memory: SharedMemory, moved = 0): MemoryRegion {
  return {
    guestAddress: BigInt(memory.guestAddress + moved),
    size: BigInt(memory.byteLength),
    userAddress: memory.userAddress,
    mmapOffset: 0n,
  };
}

async function setTable(frontEnd: FrontEnd, ...memories: readonly SharedMemory[]): Promise<void> {
  await frontEnd.request("SET_MEM_TABLE", memories.map((each) => region(each)), memories.map(({ fd }) => fd));
}

test("the same table again, while requests run: nothing is lost", LIMIT, async (t) => {
  const storage = new GatedStorage();
  storage.open = true;
  const { scene, frontEnd, memory } = await stage(t, { storage });
  const queue = await frontEnd.startQueue(0, memory, { size: 32 });
  let going = true;
  const tables = (async () => {
    while (going) await setTable(frontEnd, memory);
  })();
  for (let sector = 0; sector < 40; sector += 4) {
    const each = [0, 1, 2, 3].map((n) => sectorSurvives(queue, memory, sector + n));
    assert.deepEqual(await Promise.all(each), [true, true, true, true]);
  }
  going = false;
  await tables;
  assert.deepEqual(scene.log.problems, []);
});

test("a table with one region more, then one less, while requests run", LIMIT, async (t) => {
  const storage = new GatedStorage();
  storage.open = true;
  const { scene, frontEnd, memory } = await stage(t, { storage });
  const more = scene.memory(1 << 16, 0x4000_0000);
  const queue = await frontEnd.startQueue(0, memory, { size: 32 });
  const unchanged = noteDescriptors();
  for (let round = 0; round < 5; round++) {
    const before = [0, 1].map((n) => sectorSurvives(queue, memory, n));
    await setTable(frontEnd, memory, more);
    // Header and data in the old region, and the other way round.
    const bytes = bytesOf(round, 512);
    assert.equal((await blk(queue, more, BlkRequest.OUT, 9, { out: bytes })).status, 0);
    const during = [2, 3].map((n) => sectorSurvives(queue, memory, n));
    await setTable(frontEnd, memory);
    sameBytes((await blk(queue, memory, BlkRequest.IN, 9, { in: 512 })).data, bytes);
    assert.deepEqual(await Promise.all([...before, ...during]), [true, true, true, true]);
  }
  await unchanged();
  assert.deepEqual(scene.log.problems, []);
});

test(
  "a table that moves the memory: requests under way end, new ones use the new addresses",
  LIMIT,
  async (t) => {
    const storage = new GatedStorage();
    const { frontEnd, memory, ring: make } = await stage(t, { storage });
    const ring = make();
    await ring.start();
    const first = putRead(ring, memory, 0, 0);
    ring.send(first.head);
    await eventually("the request is with the storage", () => storage.held.length === 1);

    const MOVED = 0x7000_0000;
    await frontEnd.request("SET_MEM_TABLE", [region(memory, MOVED)], [memory.fd]);
    const second = putRead(ring, memory, 1, 0);
    const words = new DataView(ring.descriptor.bytes.buffer, ring.descriptor.bytes.byteOffset);
    for (const at of [3, 4, 5]) {
      words.setBigUint64(16 * at, words.getBigUint64(16 * at, true) + BigInt(MOVED), true);
    }
    ring.send(second.head);
    await eventually("the second request is with the storage", () => storage.held.length === 2);
    storage.release();
    await ring.until(2);
    assert.deepEqual([first.status.bytes[0], second.status.bytes[0]], [0, 0]);
  },
);

test("ADD_MEM_REG and REM_MEM_REG while requests run", LIMIT, async (t) => {
  const { scene, frontEnd, memory } = await stage(t);
  const queue = await frontEnd.startQueue(0, memory, { size: 32 });
  for (let round = 0; round < 20; round++) {
    const more = new SharedMemory(1 << 16, 0x4000_0000 + round * 0x10_0000);
    try {
      await frontEnd.request("ADD_MEM_REG", region(more), [more.fd]);
      const across = [0, 1].map((n) => sectorSurvives(queue, n === 0 ? more : memory, n));
      assert.deepEqual(await Promise.all(across), [true, true]);
      await frontEnd.request("REM_MEM_REG", region(more));
    } finally {
      more.close();
    }
  }
  assert.equal(await sectorSurvives(queue, memory, 5), true);
  assert.deepEqual(scene.log.problems, []);
});

test("memory that is taken away stays until the request that uses it has completed", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { scene, frontEnd, memory } = await stage(t, { storage });
  const [more, last] = [scene.memory(1 << 16, 0x4000_0000), scene.memory(1 << 16, 0x5000_0000)];
  await frontEnd.shareMemory(more);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  const read = blk(queue, more, BlkRequest.IN, 0, { in: 512 });
  await eventually("the request is with the storage", () => storage.held.length === 1);
  const unchanged = noteDescriptors();
  await frontEnd.request("ADD_MEM_REG", region(last), [last.fd]);
  await frontEnd.request("REM_MEM_REG", region(more));
  storage.release();
  assert.equal((await read).status, 0);
  // One came, one went.
  await unchanged();
  assert.deepEqual(scene.log.problems, []);
});

test("a request in memory that was taken away breaks its ring", LIMIT, async (t) => {
  const { scene, frontEnd, memory } = await stage(t);
  const more = scene.memory(1 << 16, 0x4000_0000);
  await frontEnd.shareMemory(more);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  assert.equal(await sectorSurvives(queue, more, 0), true);
  await frontEnd.request("REM_MEM_REG", region(more));
  await assert.rejects(sectorSurvives(queue, more, 0), /ring 0 broken/);
  await scene.log.problem(/ring 0 is broken .*0x4000[0-9a-f]{4}\+16 is not in guest memory/);
});

test("a ring whose memory is taken away is broken; the others are not", LIMIT, async (t) => {
  const { scene, frontEnd, memory } = await stage(t);
  const more = scene.memory(1 << 16, 0x4000_0000);
  await frontEnd.shareMemory(more);
  const doomed = await frontEnd.startQueue(0, more, { size: 8 });
  const queue = await frontEnd.startQueue(1, memory, { size: 8 });
  const driver = await scene.driver();
  assert.equal(await sectorSurvives(doomed, memory, 0), true);

  await frontEnd.request("REM_MEM_REG", region(more));
  await scene.log.problem(
    /ring 0 is broken .*ring 0: descriptor table 0x[0-9a-f]+\+128 is not within one region of the memory table$/,
  );
  const late = assert.rejects(blk(doomed, memory, BlkRequest.IN, 0, { in: 512 }), /ring 0 broken/);
  assert.equal(await sectorSurvives(queue, memory, 1), true);
  await verify(driver, 1);
  await late;

  // And it can be used again.
  await frontEnd.request("ADD_MEM_REG", region(more), [more.fd]);
  await frontEnd.stopQueue(doomed);
  const again = await frontEnd.startQueue(0, more, { size: 8 });
  assert.equal(await sectorSurvives(again, memory, 2), true);
  assert.deepEqual(scene.log.problems, []);
});

test("a ring whose memory goes while its requests are under way harms nobody", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const { scene, frontEnd, memory, ring: make } = await stage(t, { storage });
  const more = scene.memory(1 << 16, 0x4000_0000);
  await frontEnd.shareMemory(more);
  const ring = make();
  await ring.start();
  // The ring is in one region, its requests are in the other.
  ring.send(putRead(ring, more, 0, 0).head, putRead(ring, more, 1, 1).head);
  await eventually("the requests are with the storage", () => storage.held.length === 2);
  await frontEnd.request("REM_MEM_REG", region(memory));
  await ring.broken();
  await scene.log.problem(/ring 0 is broken/);
  const before = ring.snapshot();
  storage.held.shift()?.finish();
  await aWhile();
  assert.deepEqual(ring.snapshot(), before, "nothing is written to memory that was taken back");

  const stopped = ring.stop();
  storage.release();
  assert.equal(await stopped, 2);
  storage.open = true;
  await verify(await scene.driver(), 1);
});

test("a table without regions takes all memory away", LIMIT, async (t) => {
  const { scene, frontEnd, memory, ring: make } = await stage(t);
  const ring = make();
  await ring.start();
  await frontEnd.request("SET_MEM_TABLE", []);
  await ring.broken();
  await scene.log.problem(/ring 0 is broken/);
  await setTable(frontEnd, memory);
  await ring.stop();
  await ring.start();
  ring.send(putRead(ring, memory, 0, 0).head);
  await ring.until(1);
});

test("a request may lie across two regions", LIMIT, async (t) => {
  const { scene, frontEnd, memory } = await stage(t);
  const [low, high] = [scene.memory(4096, 0x4000_0000), scene.memory(4096, 0x4000_1000)];
  await frontEnd.shareMemory(low);
  await frontEnd.shareMemory(high);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  const bytes = bytesOf(1, 1024);
  low.piece(4096 - 300, 300).bytes.set(bytes.subarray(0, 300));
  high.piece(0, 724).bytes.set(bytes.subarray(300));
  const status = statusByte(memory);
  await queue.request(
    [buffer(header(memory, BlkRequest.OUT, 4)), { guestAddress: 0x4000_1000 - 300, length: 1024 }],
    [buffer(status)],
  );
  assert.equal(status.bytes[0], 0);
  sameBytes((await blk(queue, memory, BlkRequest.IN, 4, { in: 1024 })).data, bytes);
});
