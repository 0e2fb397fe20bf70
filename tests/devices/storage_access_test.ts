import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { FileStorage, MemoryStorage, type Storage, StorageAccess } from "../../src/devices/blk/mod.ts";
import { bytesOf, LIMIT, sameBytes } from "../session/scene.ts";
import { tempDir } from "../support/cleanup.ts";

const SIZE = 1 << 20;

for (const aio of ["sync", "io_uring"] as const) {
  test(`a file is written and read while nothing is served: ${aio}`, LIMIT, async (t) => {
    const path = join(tempDir(t), "disk");
    writeFileSync(path, new Uint8Array(SIZE));
    const storage = new FileStorage(path, { aio });
    const access = new StorageAccess(storage);
    const expected = new Uint8Array(SIZE);
    // Longer than what is moved at once, and several at a time.
    await Promise.all([[512, 700 * 1024], [768 * 1024, 512], [800 * 1024, 4096]].map(async ([at, length]) => {
      expected.set(bytesOf(at, length), at);
      await access.write(at, bytesOf(at, length));
    }));
    await access.writeZeroes(4096, 8192);
    expected.fill(0, 4096, 12288);
    await access.flush();
    const found = new Uint8Array(SIZE);
    await access.read(0, found);
    sameBytes(found, expected);
    access.close();
    storage.close();
    sameBytes(readFileSync(path), expected);
  });
}

test("a storage that cannot zero is written zeros; what it throws is thrown", LIMIT, async () => {
  const memory = new MemoryStorage(SIZE);
  const storage: Storage = {
    size: SIZE,
    readOnly: false,
    read: (data, position) => memory.read(data, position),
    write: (data, position) =>
      position === 0 ? Promise.reject(new Error("no")) : memory.write(data, position),
    flush(): void {
      throw new Error("nor this");
    },
    close: () => memory.close(),
  };
  const access = new StorageAccess(storage);
  await access.write(512, bytesOf(1, SIZE - 512));
  await access.writeZeroes(1024, 600 * 1024);
  const expected = bytesOf(1, SIZE - 512).fill(0, 512, 512 + 600 * 1024);
  const found = new Uint8Array(SIZE - 512);
  await access.read(512, found);
  sameBytes(found, expected);
  await assert.rejects(access.write(0, new Uint8Array(512)), /^Error: no$/);
  await assert.rejects(access.flush(), /nor this/);
  access.close();
  storage.close();
});

test("what is out of range, or after the end, is refused", LIMIT, async () => {
  const storage = new MemoryStorage(SIZE);
  const access = new StorageAccess(storage);
  await assert.rejects(
    access.read(SIZE - 512, new Uint8Array(1024)),
    /1024 bytes at 1048064: the storage has 1048576/,
  );
  await assert.rejects(access.write(-512, new Uint8Array(512)), RangeError);
  await assert.rejects(access.writeZeroes(SIZE, 512), RangeError);
  const last = access.read(0, new Uint8Array(512));
  access.close();
  await last;
  await assert.rejects(access.read(0, new Uint8Array(512)), /the access is closed/);
  storage.close();
});
