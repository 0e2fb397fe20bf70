import assert from "node:assert/strict";
import { test } from "node:test";
import { ChunkedStorage, type ChunkStore, StorageAccess } from "../../src/devices/blk/mod.ts";
import { History } from "../crash/history.ts";
import { Load } from "../crash/load.ts";
import { bytesOf, eventually, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import { Random } from "../support/random.ts";
import { MemoryChunks, type MemoryChunksOptions, upTo } from "./memory_chunks.ts";

const SECTOR = 512;
const CHUNK = 4096;
const KIB = 1024;

/** A disk of 64 KiB with content, its store, and access to it. */
function disk(
  options: MemoryChunksOptions & ConstructorParameters<typeof ChunkedStorage>[1] = {},
): { store: MemoryChunks; storage: ChunkedStorage; access: StorageAccess } {
  const store = new MemoryChunks(bytesOf(1, 64 * KIB), CHUNK, options);
  const storage = new ChunkedStorage(store, options);
  return { store, storage, access: new StorageAccess(storage) };
}

async function read(access: StorageAccess, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await access.read(position, bytes);
  return bytes;
}

const count = (store: MemoryChunks, name: string): number =>
  store.done.filter((each) => each.startsWith(name)).length;

test("what is in memory is not read again, and what is wanted by many is read once", LIMIT, async () => {
  const { store, access } = disk({ delay: () => 2 });
  const wanted = Array.from({ length: 20 }, (_, i) => read(access, i % 8 * SECTOR, SECTOR));
  for (const [i, bytes] of (await Promise.all(wanted)).entries()) {
    sameBytes(bytes, store.bytes.slice(i % 8 * SECTOR, (i % 8 + 1) * SECTOR));
  }
  sameBytes(
    await read(access, 1000 * 0 + 3 * SECTOR, 3 * CHUNK),
    store.bytes.slice(3 * SECTOR, 3 * SECTOR + 3 * CHUNK),
  );
  assert.deepEqual(store.done.toSorted(), ["read 0", "read 1", "read 2", "read 3"]);
});

test("memory has its limit, and what was not used for long goes first", LIMIT, async () => {
  const { store, access } = disk({ cacheSize: 4 * CHUNK });
  for (const index of [0, 1, 2, 3]) await read(access, index * CHUNK, SECTOR);
  for (const index of [4, 5]) {
    await read(access, index * CHUNK, SECTOR);
    await read(access, 5 * CHUNK, SECTOR);
  }
  const before = store.done.length;
  await read(access, 5 * CHUNK, SECTOR);
  assert.equal(store.done.length, before, "chunk 5 is there");
  // More chunks at once than there is room for.
  sameBytes(await read(access, 0, 64 * KIB), store.bytes);
});

test("a request may have many more chunks than there is room for", LIMIT, async () => {
  for (const writeBack of [false, true]) {
    const store = new MemoryChunks(new Uint8Array(8192 * SECTOR), SECTOR);
    const access = new StorageAccess(new ChunkedStorage(store, { cacheSize: 1000 * SECTOR, writeBack }));
    const data = bytesOf(4, store.size);
    const halves = [0, 1].map((i) => data.slice(i * store.size / 2, (i + 1) * store.size / 2));
    await Promise.all(halves.map((half, i) => access.write(i * half.length, half)));
    sameBytes(await read(access, 0, store.size), data);
    await access.flush();
    sameBytes(store.bytes, data);
    assert.deepEqual(store.offences, []);
  }
});

test("a write is in the store when it is done, and only what has changed", LIMIT, async () => {
  const { store, access } = disk();
  const expected = store.bytes.slice();
  expected.set(bytesOf(2, 3 * CHUNK), 5 * SECTOR);
  await access.write(5 * SECTOR, bytesOf(2, 3 * CHUNK));
  sameBytes(store.bytes, expected);
  // Chunks that are written as a whole were not read.
  assert.deepEqual(store.done.filter((each) => /^read/.test(each)).toSorted(), ["read 0", "read 3"]);
  assert.equal(count(store, "flush"), 0);
  await access.flush();
  assert.equal(count(store, "flush"), 1);
});

test("writes to one chunk that come while one is under way reach the store together", LIMIT, async () => {
  const { store, access } = disk({ delay: () => 5 });
  await Promise.all(Array.from({ length: 8 }, (_, i) => access.write(i * SECTOR, bytesOf(i, SECTOR))));
  assert.ok(count(store, "write") <= 2, store.done.join());
  for (let i = 0; i < 8; i++) sameBytes(store.bytes.slice(i * SECTOR, (i + 1) * SECTOR), bytesOf(i, SECTOR));
});

test("write-back: the store gets it with a flush, once", LIMIT, async () => {
  const { store, storage, access } = disk({ writeBack: true });
  assert.equal(storage.volatile, true);
  const before = store.bytes.slice();
  for (let i = 0; i < 8; i++) await access.write(i * SECTOR, bytesOf(i, SECTOR));
  await access.write(10 * CHUNK, bytesOf(9, CHUNK));
  sameBytes(store.bytes, before);
  await access.flush();
  assert.deepEqual(store.done, ["read 0", "write 0", "write 10", "flush"]);
  before.set(bytesOf(9, CHUNK), 10 * CHUNK);
  for (let i = 0; i < 8; i++) before.set(bytesOf(i, SECTOR), i * SECTOR);
  sameBytes(store.bytes, before);
  await access.flush();
  assert.deepEqual(store.done.slice(4), ["flush"]);
});

test("write-back: there is no more in memory than there is room for", LIMIT, async () => {
  const { store, access } = disk({ writeBack: true, cacheSize: 4 * CHUNK, delay: () => 1 });
  const data = bytesOf(3, 64 * KIB);
  for (let at = 0; at < data.length; at += SECTOR) await access.write(at, data.slice(at, at + SECTOR));
  assert.ok(count(store, "write") >= 12, "most of it had to go");
  sameBytes(await read(access, 0, 64 * KIB), data);
  await access.flush();
  sameBytes(store.bytes, data);
  assert.deepEqual(store.offences, []);
});

test("a chunk that cannot be read fails those that want it, and nobody else", LIMIT, async () => {
  let broken = true;
  const { store, access } = disk({
    delay: () => 2,
    fails: (name, index) => broken && name === "read" && index === 1,
  });
  const some = await Promise.allSettled([
    read(access, 0, CHUNK),
    read(access, CHUNK, SECTOR),
    read(access, CHUNK + SECTOR, SECTOR),
    read(access, 0, 3 * CHUNK),
    access.write(CHUNK + SECTOR, bytesOf(2, SECTOR)),
    access.write(2 * CHUNK + SECTOR, bytesOf(2, SECTOR)),
  ]);
  assert.deepEqual(some.map(({ status }) => status === "fulfilled"), [
    true,
    false,
    false,
    false,
    false,
    true,
  ]);
  broken = false;
  sameBytes(await read(access, CHUNK, CHUNK), store.bytes.slice(CHUNK, 2 * CHUNK));
});

test("a write that the store refuses fails, and is not there later", LIMIT, async () => {
  let broken = true;
  const { store, access } = disk({ delay: () => 1, fails: (name) => broken && name === "write" });
  const before = store.bytes.slice();
  const failed = await Promise.allSettled([
    access.write(0, bytesOf(2, SECTOR)),
    access.write(SECTOR, bytesOf(3, SECTOR)),
  ]);
  assert.deepEqual(failed.map(({ status }) => status), ["rejected", "rejected"]);
  broken = false;
  await access.write(2 * SECTOR, bytesOf(4, SECTOR));
  before.set(bytesOf(4, SECTOR), 2 * SECTOR);
  sameBytes(await read(access, 0, CHUNK), before.slice(0, CHUNK));
  sameBytes(store.bytes, before);
});

test("write-back: what was flushed in vain is flushed again", LIMIT, async () => {
  let broken = true;
  const { store, access } = disk({
    writeBack: true,
    fails: (name, index) => broken && name === "write" && index === 0,
  });
  await access.write(0, bytesOf(2, SECTOR));
  await access.write(CHUNK, bytesOf(3, SECTOR));
  await assert.rejects(access.flush(), /write 0 fails/);
  assert.equal(count(store, "flush"), 0);
  sameBytes(store.bytes.slice(CHUNK, CHUNK + SECTOR), bytesOf(3, SECTOR), "the other one got there");
  broken = false;
  await access.flush();
  sameBytes(store.bytes.slice(0, SECTOR), bytesOf(2, SECTOR));
});

test("write-back: a store that refuses everything ends in errors, not in waiting", LIMIT, async () => {
  const { access } = disk({ writeBack: true, cacheSize: 4 * CHUNK, fails: (name) => name === "write" });
  const ends = await Promise.allSettled(
    Array.from({ length: 16 }, (_, i) => access.write(i * CHUNK, bytesOf(i, CHUNK))),
  );
  assert.equal(ends.filter(({ status }) => status === "fulfilled").length, 4);
  sameBytes(await read(access, 0, CHUNK), bytesOf(0, CHUNK), "what is in memory can still be read");
});

test("a flush waits for a chunk that was on its way already", LIMIT, async () => {
  const { store, access } = disk({ writeBack: true, delay: () => 10 });
  await access.write(0, bytesOf(2, CHUNK));
  const first = access.flush();
  await eventually("it is on its way", () => store.most > 0);
  await access.flush();
  sameBytes(store.bytes.slice(0, CHUNK), bytesOf(2, CHUNK));
  await first;
});

test("who reads one chunk after the other finds the next ones there", LIMIT, async () => {
  const { store, access } = disk({ readAhead: 4 });
  await read(access, 2 * CHUNK, SECTOR);
  await read(access, 2 * CHUNK + SECTOR, SECTOR);
  assert.deepEqual(store.done, ["read 2"]);
  await read(access, 3 * CHUNK, SECTOR);
  await eventually("four more", () => store.done.length === 6);
  assert.deepEqual(store.done, ["read 2", "read 3", "read 4", "read 5", "read 6", "read 7"]);
  await read(access, 4 * CHUNK, 2 * CHUNK);
  await eventually("as far as before", () => store.done.length === 8);
  // Here and there is not one after the other.
  const random = disk({ readAhead: 4 });
  for (const index of [9, 3, 12, 5, 15, 7]) await read(random.access, index * CHUNK, SECTOR);
  assert.equal(random.store.done.length, 6);
  // The end of the disk is the end.
  for (const index of [13, 14, 15]) await read(random.access, index * CHUNK, SECTOR);
  assert.ok(random.store.done.every((each) => Number(each.slice(5)) < 16));
});

test("whole chunks are erased; zeros are zeros to the byte", LIMIT, async () => {
  const store = new MemoryChunks(bytesOf(1, 63 * KIB), CHUNK);
  const storage = new ChunkedStorage(store);
  const access = new StorageAccess(storage);
  const expected = store.bytes.slice();
  for (
    const [from, to] of [[SECTOR, 3 * CHUNK + SECTOR], [5 * CHUNK, 6 * CHUNK], [
      7 * CHUNK + 512,
      7 * CHUNK + 1024,
    ]]
  ) {
    await storage.writeZeroes?.(from, to - from);
    expected.fill(0, from, to);
    sameBytes(await read(access, 0, 63 * KIB), expected, `${from} to ${to}`);
    sameBytes(store.bytes, expected, `${from} to ${to}, stored`);
  }
  // The last chunk is shorter.
  await storage.discard?.(10 * CHUNK + SECTOR, 63 * KIB - 10 * CHUNK - SECTOR);
  expected.fill(0, 11 * CHUNK);
  sameBytes(store.bytes, expected);
  assert.deepEqual(
    store.done.filter((each) => each.startsWith("erase")),
    ["erase 1", "erase 2", "erase 5", "erase 11", "erase 12", "erase 13", "erase 14", "erase 15"],
  );
  await storage.writeZeroes?.(15 * CHUNK + SECTOR, 63 * KIB - 15 * CHUNK - SECTOR);
  sameBytes(store.bytes, expected);
});

test("a closed disk answers nobody, and nobody waits for it for ever", LIMIT, async () => {
  const { store, storage, access } = disk({ delay: () => 5, cacheSize: 4 * CHUNK });
  const pending = Array.from({ length: 16 }, (_, i) => read(access, i * CHUNK, SECTOR));
  await eventually("four are under way", () => store.most === 4);
  storage.close();
  storage.close();
  const ends = await Promise.allSettled(pending);
  assert.equal(ends.filter(({ status }) => status === "fulfilled").length, 4);
  await assert.rejects(read(access, 0, SECTOR).then(() => read(access, 9 * CHUNK, SECTOR)), /closed/);
});

test("sizes that cannot be are refused", LIMIT, () => {
  const nothing = (): void => {};
  const store = (size: number, chunkSize: number): ChunkStore => ({
    size,
    chunkSize,
    read: nothing,
    close: nothing,
  });
  assert.throws(() => new ChunkedStorage(store(1000, 512)), /size must be a multiple of 512 bytes, got 1000/);
  assert.throws(() => new ChunkedStorage(store(1024, 0)), /chunkSize must be .*, got 0/);
  assert.throws(
    () => new ChunkedStorage(store(1024, 512), { cacheSize: 1024 }),
    /4 chunks, 2048 bytes, at least/,
  );
  assert.throws(() => new ChunkedStorage(store(1024, 512), { readAhead: -1 }), /readAhead .* got -1/);
  assert.throws(() => new ChunkedStorage(store(1024, 512), { concurrency: 0 }), /concurrency .* got 0/);
  assert.equal(new ChunkedStorage(store(1024, 512)).readOnly, true);
});

for (const writeBack of [false, true]) {
  for (const failing of [false, true]) {
    const how = `${writeBack ? "write-back" : "write-through"}${failing ? ", reads fail now and then" : ""}`;
    test(`a load of requests that overlap: ${how}`, { timeout: 60_000 }, async (t) => {
      const random = Random.of(t);
      const sectors = 256;
      const store = new MemoryChunks(new Uint8Array(sectors * SECTOR), 3584, {
        delay: upTo(random, 3),
        fails: (name) => failing && name === "read" && random.int(0, 50) === 0,
        concurrency: 5,
      });
      const storage = new ChunkedStorage(store, {
        writeBack,
        cacheSize: 12 * 3584,
        concurrency: 5,
        readAhead: 2,
      });
      const scene = await Scene.disk(t, { storage });
      const driver = await scene.driver({ depth: 16, maxTransfer: 16384 });
      if (failing) {
        // A request that has failed may have been done: only bytes that somebody has written may be there.
        await Promise.all(Array.from({ length: 400 }, async () => {
          const at = random.int(0, sectors - 16) * SECTOR;
          const fill = new Uint8Array(random.int(1, 16) * SECTOR).fill(at / SECTOR & 0xff);
          await (random.int(0, 1) ? driver.write(at, fill) : driver.read(at, fill.length)).catch(() => {});
        }));
      } else {
        const history = new History(sectors, true);
        const load = new Load(driver, history, random, { writeThrough: !writeBack });
        for (let i = 0; i < 40; i++) {
          await load.more(20);
          // What is in the store is what is left when the process dies.
          history.check(store.bytes, "durable");
        }
        await load.end();
        history.check(await driver.read(0, sectors * SECTOR));
        await driver.flush();
        history.check(store.bytes);
      }
      assert.deepEqual(store.offences, []);
      assert.deepEqual(scene.log.problems, []);
      assert.ok(store.most > 1 && store.most <= 5, `${store.most} operations at once`);
    });
  }
}
