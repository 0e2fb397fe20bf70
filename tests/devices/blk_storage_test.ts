import assert from "node:assert/strict";
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import {
  FileStorage,
  MemoryStorage,
  NullStorage,
  openStorage,
  parseSize,
} from "../../src/devices/blk/mod.ts";
import { LATER } from "../../src/backend/device.ts";
import { Segments } from "../../src/memory/segments.ts";
import { Span } from "../../src/memory/span.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { IoUring } from "../../ffi/io_uring.ts";
import type { BlkDriver } from "../../src/tools/blk_driver.ts";
import { file as memoryOf, guestMemory, region } from "../memory/memory_file.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { readsCached } from "../support/cached_reads.ts";
import { bytesOf, type DiskScene, eventually, LIMIT, sameBytes, Scene } from "../session/scene.ts";

const MIB = 1 << 20;

/** A file, and a disk that serves it. */
async function fileDisk(
  t: TestContext,
  content: Uint8Array,
  options: { readonly readOnly?: boolean } = {},
): Promise<{ path: string; storage: FileStorage; scene: DiskScene; driver: BlkDriver }> {
  const path = join(tempDir(t), "disk");
  writeFileSync(path, content);
  const storage = new FileStorage(path, options);
  const scene = await Scene.disk(t, { storage });
  return { path, storage, scene, driver: await scene.driver() };
}

test("what is written is in the file, and what is in the file is read", LIMIT, async (t) => {
  const { path, driver } = await fileDisk(t, bytesOf(1, MIB));
  const expected = bytesOf(1, MIB);
  sameBytes(await driver.read(0, MIB), expected);
  await driver.write(512 * 77, bytesOf(2, 20000 - 20000 % 512));
  expected.set(bytesOf(2, 20000 - 20000 % 512), 512 * 77);
  await driver.flush();
  sameBytes(new Uint8Array(readFileSync(path)), expected);
});

test(
  "a file that ends within a sector: the rest reads as zeros, and is there once it is written",
  LIMIT,
  async (t) => {
    const { path, driver } = await fileDisk(t, bytesOf(3, 1000));
    assert.equal(driver.size, 1024);
    const expected = new Uint8Array(1024);
    expected.set(bytesOf(3, 1000));
    sameBytes(await driver.read(0, 1024), expected);
    sameBytes(await driver.read(512, 512), expected.slice(512));
    assert.equal(statSync(path).size, 1000, "reading changes nothing");
    await driver.write(0, bytesOf(4, 512));
    assert.equal(statSync(path).size, 1000);
    await driver.write(512, bytesOf(5, 512));
    assert.equal(statSync(path).size, 1024);
    sameBytes(await driver.read(512, 512), bytesOf(5, 512));
  },
);

for (const direct of [false, true]) {
  test(`neighbours are one operation of the kernel${direct ? ", O_DIRECT" : ""}`, LIMIT, async (t) => {
    const path = join(tempDir(t), "disk");
    // The end of the file is in the last operation, which does less than it should.
    writeFileSync(path, bytesOf(20, MIB - 188));
    const expected = new Uint8Array(MIB);
    expected.set(bytesOf(20, MIB - 188));
    const widened = t.mock.method(IoUring.prototype, "widen").mock;
    const scene = await Scene.disk(t, { storage: new FileStorage(path, { aio: "io_uring", direct }) });
    const driver = await scene.driver({ depth: 64, maxTransfer: 8192 });
    sameBytes(await driver.read(0, MIB), expected);
    const forReads = widened.callCount();
    assert.ok(forReads > 0, "reads");
    expected.set(bytesOf(21, MIB / 2), MIB / 4);
    await driver.write(MIB / 4, bytesOf(21, MIB / 2));
    assert.ok(widened.callCount() > forReads, "writes");
    // A write between two reads that would be neighbours.
    const [before, , after] = await Promise.all([
      driver.read(0, 4096),
      driver.write(MIB / 2, bytesOf(22, 4096)),
      driver.read(4096, 4096),
    ]);
    expected.set(bytesOf(22, 4096), MIB / 2);
    sameBytes(before, expected.slice(0, 4096));
    sameBytes(after, expected.slice(4096, 8192));
    sameBytes(await driver.read(0, MIB), expected);
    sameBytes(new Uint8Array(readFileSync(path)), expected.slice(0, statSync(path).size));
    assert.deepEqual(scene.log.problems, []);
  });
}

test("an empty file is a disk without sectors", LIMIT, async (t) => {
  const { driver } = await fileDisk(t, new Uint8Array(0));
  assert.equal(driver.size, 0);
  await assert.rejects(driver.read(0, 512), /I\/O error/);
});

test("DISCARD gives the file's room back, and reads as zeros", LIMIT, async (t) => {
  const { path, driver } = await fileDisk(t, bytesOf(6, MIB));
  const blocks = () => statSync(path).blocks;
  const before = blocks();
  await driver.discard(256 * 1024, 512 * 1024);
  assert.equal(before - blocks(), 1024, "half of it, in blocks of 512 bytes");
  assert.equal(statSync(path).size, MIB);
  const expected = bytesOf(6, MIB);
  expected.fill(0, 256 * 1024, 768 * 1024);
  sameBytes(await driver.read(0, MIB), expected);
});

test("WRITE_ZEROES gives room back only when it may", LIMIT, async (t) => {
  const { path, driver } = await fileDisk(t, bytesOf(7, MIB));
  const blocks = () => statSync(path).blocks;
  const before = blocks();
  const expected = bytesOf(7, MIB);
  await driver.writeZeroes(0, 128 * 1024);
  assert.equal(blocks(), before);
  await driver.writeZeroes(512 * 1024, 128 * 1024, true);
  assert.equal(before - blocks(), 256);
  await driver.writeZeroes(300 * 512, 3 * 512);
  expected.fill(0, 0, 128 * 1024).fill(0, 512 * 1024, 640 * 1024).fill(0, 300 * 512, 303 * 512);
  sameBytes(await driver.read(0, MIB), expected);
});

test("WRITE_ZEROES up to the limit of one range, and not beyond", LIMIT, async (t) => {
  const { driver, path } = await fileDisk(t, new Uint8Array(0));
  const limit = driver.config.maxWriteZeroesSectors * 512;
  truncateSync(path, limit + 512);
  const bigger = await Scene.disk(t, { storage: new FileStorage(path) });
  const again = await bigger.driver();
  await again.write(limit - 512, bytesOf(1, 1024));
  await again.writeZeroes(0, limit);
  sameBytes(await again.read(limit - 512, 512), new Uint8Array(512));
  sameBytes(await again.read(limit, 512), bytesOf(1, 1024).slice(512));
  await assert.rejects(again.writeZeroes(0, limit + 512), /I\/O error/);
});

test("a file is resized by its storage, and the guest is told", LIMIT, async (t) => {
  const { path, storage, scene, driver } = await fileDisk(t, bytesOf(8, MIB));
  let changes = 0;
  driver.frontEnd.onConfigChange = () => changes++;
  storage.resize(2 * MIB);
  scene.disk.resized();
  await eventually("the driver is told", () => changes === 1);
  await driver.refresh();
  assert.equal(driver.size, 2 * MIB);
  assert.equal(statSync(path).size, 2 * MIB);
  await driver.write(2 * MIB - 512, bytesOf(9, 512));
  sameBytes(await driver.read(2 * MIB - 512, 512), bytesOf(9, 512));
  storage.resize(4096);
  await assert.rejects(driver.read(4096, 512), /I\/O error/);
  sameBytes(await driver.read(0, 4096), bytesOf(8, MIB).slice(0, 4096));
});

test(
  "a file that somebody else changes: noticed when looked at; what is cut off reads as zeros",
  LIMIT,
  async (t) => {
    const { path, storage, driver } = await fileDisk(t, bytesOf(10, 8192));
    const fd = openSync(path, "r+");
    ftruncateSync(fd, 4096);
    closeSync(fd);
    sameBytes(await driver.read(4096, 4096), new Uint8Array(4096));
    truncateSync(path, 16384);
    await assert.rejects(driver.read(8192, 512), /I\/O error/);
    storage.refresh();
    sameBytes(await driver.read(8192, 512), new Uint8Array(512));
  },
);

test("a file opened for reading is a read-only disk", LIMIT, async (t) => {
  const { path, driver } = await fileDisk(t, bytesOf(11, 4096), { readOnly: true });
  sameBytes(await driver.read(0, 4096), bytesOf(11, 4096));
  await assert.rejects(driver.write(0, new Uint8Array(512)), /I\/O error/);
  sameBytes(new Uint8Array(readFileSync(path)), bytesOf(11, 4096));
});

test("memory is zero at first, after DISCARD and after growing", LIMIT, async (t) => {
  const storage = new MemoryStorage(MIB);
  const driver = await (await Scene.disk(t, { storage })).driver();
  sameBytes(await driver.read(0, 8192), new Uint8Array(8192));
  await driver.write(0, bytesOf(1, 16384));
  await driver.discard(4096, 4096);
  await driver.writeZeroes(8192, 512);
  await driver.writeZeroes(12288, 4096, true);
  const expected = bytesOf(1, 16384).fill(0, 4096, 8704).fill(0, 12288);
  sameBytes(await driver.read(0, 16384), expected);
  storage.resize(512);
  storage.resize(MIB);
  sameBytes(await driver.read(512, 8192), new Uint8Array(8192));
  sameBytes(await driver.read(0, 512), expected.slice(0, 512));
});

test("sizes", () => {
  for (
    const [text, size] of [
      ["512", 512],
      ["4096", 4096],
      ["64K", 65536],
      ["64k", 65536],
      ["1.5G", 1.5 * 2 ** 30],
      ["2T", 2 ** 41],
      ["16M", 2 ** 24],
      ["16MB", 2 ** 24],
      ["16MiB", 2 ** 24],
      ["0.5K", 512],
      [" 1K ", 1024],
    ] as const
  ) assert.equal(parseSize(text), size, text);
  for (
    const text of [
      "",
      "0",
      "0K",
      "-1K",
      "511",
      "1.0001K",
      "K",
      "1P",
      "1 K",
      "1KK",
      "1e6",
      "0x200",
      "9999999T",
      "x",
    ]
  ) {
    assert.throws(() => parseSize(text), (error: Error) => {
      assert.ok(error instanceof TypeError);
      assert.match(error.message, /size must be .* multiple of 512 bytes; got "/);
      return true;
    }, text);
  }
});

test("storages by a short text", (t) => {
  const folder = tempDir(t);
  const path = join(folder, "a:b");
  writeFileSync(path, new Uint8Array(1024));
  for (
    const [uri, kind, size] of [["mem:64K", MemoryStorage, 65536], ["null:1T", NullStorage, 2 ** 40], [
      `file:${path}`,
      FileStorage,
      1024,
    ]] as const
  ) {
    const storage = openStorage(uri);
    assert.ok(storage instanceof kind, uri);
    assert.equal(storage.size, size);
    storage.close();
  }
  const readOnly = openStorage(`file:${path}`, { readOnly: true });
  assert.equal(readOnly.readOnly, true);
  readOnly.close();
  for (
    const [uri, said] of [
      ["", /storage must be file:PATH, mem:SIZE or null:SIZE, got ""/],
      ["disk.img", /storage must be .* got "disk.img"/],
      ["http://x", /storage must be/],
      ["mem:", /size must be .* got ""/],
      ["null:7", /multiple of 512/],
      [`file:${folder}`, /open: EISDIR|is a directory; a disk needs a file or a block device/],
      [`file:${join(folder, "missing")}`, /open: ENOENT .*opening .*missing/],
      ["file:/dev/null", /\/dev\/null is a character device; a disk needs a file or a block device/],
    ] as const
  ) assert.throws(() => openStorage(uri), said, uri);
});

test(
  "where nobody looks, a few cached reads are done one by one, and many by the batch",
  LIMIT,
  async (t) => {
    const path = join(tempDir(t), "disk");
    writeFileSync(path, bytesOf(5, 64 * 512));
    const storage = new FileStorage(path, { aio: "io_uring" });
    // The reactor runs while somebody is there.
    await (await Scene.disk(t, { storage })).driver();
    const memory = guestMemory(t);
    memory.replace([region(memoryOf(t, "reads", 16), 0, 16)]);
    const [guest] = memory.regions;
    const reactor = Reactor.shared();
    const { pollCeiling } = reactor;
    onEnd(t, () => void (reactor.pollCeiling = pollCeiling));
    // Where a file system cannot say what is cached, nothing is done at once.
    const few = (count: number): number => readsCached(dirname(path)) ? count : 0;
    let later = 0;
    /** Reads so many sectors, each by itself. Returns how many were there at once. */
    const read = (count: number): number => {
      let atOnce = 0;
      for (let i = 0; i < count; i++) {
        const segments = new Segments();
        // Twice the distance, so that no two are neighbours.
        segments.push(guest, i * 1024, 512);
        guest.bytes.fill(0xee, i * 1024, i * 1024 + 512);
        const span = new Span().set(segments, 0, 512);
        const done = (error?: unknown): void => {
          assert.equal(error, undefined);
          later--;
        };
        if (storage.read(span, i * 1024, { done }) === LATER) later++;
        else atOnce++;
      }
      return atOnce;
    };
    const settled = async (count: number): Promise<void> => {
      await eventually("all are there", () => later === 0);
      const expected = bytesOf(5, 64 * 512);
      for (let i = 0; i < count; i++) {
        sameBytes(guest.bytes.slice(i * 1024, i * 1024 + 512), expected.slice(i * 1024, i * 1024 + 512));
      }
    };
    reactor.pollCeiling = 0;
    reactor.round++;
    assert.equal(read(12), few(12));
    await settled(12);
    reactor.round++;
    assert.equal(read(20), few(20), "the last time there were few");
    reactor.round++;
    assert.equal(read(3), 0, "the last time there were many");
    await settled(3);
    reactor.round++;
    assert.equal(read(3), few(3));
    reactor.pollCeiling = 0.05;
    assert.equal(read(3), 0);
    await settled(3);
  },
);
