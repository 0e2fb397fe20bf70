import assert from "node:assert/strict";
import { readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  ChunkedStorage,
  FileStorage,
  MemoryStorage,
  OverlayChunks,
  type Storage,
  StorageAccess,
} from "../../src/devices/blk/mod.ts";
import { bytesOf, LIMIT, sameBytes } from "../session/scene.ts";
import { type Scope, tempDir } from "../support/cleanup.ts";
import { MemoryChunks } from "./memory_chunks.ts";

const KIB = 1024;
const CHUNK = 64 * KIB;
const SIZE = 1000 * KIB;

const below = (): MemoryChunks => new MemoryChunks(bytesOf(1, SIZE), CHUNK);

function file(scope: Scope): string {
  const path = join(tempDir(scope), "overlay");
  writeFileSync(path, "");
  truncateSync(path, OverlayChunks.sizeFor(below()));
  return path;
}

async function open(
  base: MemoryChunks,
  upper: Storage,
  copyOnRead = false,
  identity = "base",
): Promise<{ chunks: OverlayChunks; storage: ChunkedStorage; access: StorageAccess }> {
  const chunks = await OverlayChunks.open(base, upper, { identity, copyOnRead });
  const storage = new ChunkedStorage(chunks);
  return { chunks, storage, access: new StorageAccess(storage) };
}

async function all(access: StorageAccess): Promise<Uint8Array> {
  const bytes = new Uint8Array(SIZE);
  await access.read(0, bytes);
  return bytes;
}

test("what is written covers what is below, which stays, and is there the next time", LIMIT, async (t) => {
  const path = file(t);
  const base = below();
  const expected = base.bytes.slice();
  const first = await open(base, new FileStorage(path));
  for (const [at, length] of [[512, 512], [CHUNK - 512, 1024], [SIZE - 1024, 1024], [5 * CHUNK, CHUNK]]) {
    await first.access.write(at, bytesOf(at, length));
    expected.set(bytesOf(at, length), at);
  }
  sameBytes(await all(first.access), expected);
  sameBytes(base.bytes, bytesOf(1, SIZE), "below");
  assert.equal(first.chunks.present, 4);
  first.access.close();
  first.storage.close();
  assert.equal(base.closed, true);
  assert.ok(statSync(path).blocks * 512 < 6 * CHUNK, "the file has holes");

  const again = await open(below(), new FileStorage(path));
  sameBytes(await all(again.access), expected);
  again.access.close();
  again.storage.close();
});

test("what was read is copied, and not read below again", LIMIT, async (t) => {
  const path = file(t);
  const first = await open(below(), new FileStorage(path), true);
  sameBytes(await all(first.access), bytesOf(1, SIZE));
  await first.access.flush();
  first.access.close();
  first.storage.close();
  const base = below();
  const again = await open(base, new FileStorage(path), true);
  sameBytes(await all(again.access), bytesOf(1, SIZE));
  assert.deepEqual(base.done, []);
  again.access.close();
  again.storage.close();
});

test("zeros over what is below are zeros, and take no room", LIMIT, async (t) => {
  const path = file(t);
  const { storage, access } = await open(below(), new FileStorage(path));
  await storage.writeZeroes?.(CHUNK, 3 * CHUNK);
  await storage.discard?.(6 * CHUNK + 512, SIZE - 6 * CHUNK - 512);
  const expected = bytesOf(1, SIZE).fill(0, CHUNK, 4 * CHUNK).fill(0, 7 * CHUNK);
  sameBytes(await all(access), expected);
  assert.ok(statSync(path).blocks * 512 < CHUNK);
  access.close();
  storage.close();
  const again = await open(below(), new FileStorage(path));
  sameBytes(await all(again.access), expected);
  again.access.close();
  again.storage.close();
});

test("an overlay in memory goes with the process, and says so", LIMIT, async () => {
  const { storage, access } = await open(below(), new MemoryStorage(OverlayChunks.sizeFor(below())));
  assert.equal(storage.volatile, true);
  await access.write(0, bytesOf(2, 512));
  const expected = bytesOf(1, SIZE);
  expected.set(bytesOf(2, 512));
  sameBytes(await all(access), expected);
  access.close();
  storage.close();
});

test("an overlay over something else, or none at all, is refused and left as it is", LIMIT, async (t) => {
  const path = file(t);
  const { access, storage } = await open(below(), new FileStorage(path), false, "version 1");
  access.close();
  storage.close();
  const before = readFileSync(path);
  const base = below();
  await assert.rejects(
    open(base, new FileStorage(path), false, "version 2"),
    /made over something else: it needs "1024000 65536\\nversion 1", got "1024000 65536\\nversion 2"/,
  );
  assert.equal(base.closed, true);
  await assert.rejects(
    open(new MemoryChunks(bytesOf(1, SIZE), 2 * CHUNK), new FileStorage(path), false, "version 1"),
    /needs "1024000 65536\\n/,
  );
  assert.deepEqual(readFileSync(path), before);
  writeFileSync(path, bytesOf(3, before.length));
  await assert.rejects(open(below(), new FileStorage(path)), /something else where the overlay should be/);
  sameBytes(readFileSync(path), bytesOf(3, before.length));
  truncateSync(path, 4096);
  await assert.rejects(open(below(), new FileStorage(path)), RangeError);
  await assert.rejects(open(below(), new FileStorage(path), false, "x".repeat(4000)), /identity/);
});
