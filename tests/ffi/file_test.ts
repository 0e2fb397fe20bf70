import assert from "node:assert/strict";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { addSeals, close, fileStatus, Seal } from "../../ffi/fd.ts";
import {
  allocate,
  FallocateMode,
  openFile,
  OpenFlag,
  readAt,
  readCached,
  syncData,
  writeAt,
} from "../../ffi/file.ts";
import { Iovec } from "../../ffi/iovec.ts";
import { Mapping, memoryFile } from "../../ffi/mapping.ts";
import { Native } from "../../ffi/native.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { readsCached } from "../support/cached_reads.ts";

const PAGE = 4096;
const MIB = 2 ** 20;

function owned(t: TestContext, fd: number): number {
  onEnd(t, () => close(fd));
  return fd;
}

function memory(t: TestContext, byteLength: number): { fd: number; bytes: Uint8Array } {
  const fd = owned(t, memoryFile("file-test", byteLength));
  const mapping = new Mapping(fd, byteLength);
  onEnd(t, () => mapping.unmap());
  return { fd, bytes: new Uint8Array(mapping.buffer) };
}

function list(...pieces: readonly Native[]): Iovec {
  const iovec = new Iovec(Math.max(1, pieces.length));
  for (const { address, bytes } of pieces) iovec.push(Number(address), bytes.length);
  return iovec;
}

function native(...bytes: number[]): Native {
  const piece = new Native(bytes.length);
  piece.bytes.set(bytes);
  return piece;
}

test("pieces are written one after the other, and read back into others", { timeout: 5000 }, (t) => {
  const { fd, bytes } = memory(t, PAGE);
  writeAt(fd, list(native(1), native(2, 3), native(4, 5, 6)), 100);
  assert.deepEqual(bytes.slice(99, 108), new Uint8Array([0, 1, 2, 3, 4, 5, 6, 0, 0]));

  const targets = [new Native(4), new Native(1), new Native(3)];
  assert.equal(readAt(fd, list(...targets), 99), 8);
  assert.deepEqual(targets.map((each) => [...each.bytes]), [[0, 1, 2, 3], [4], [5, 6, 0]]);
});

test("positions beyond 4 GiB are positions beyond 4 GiB", { timeout: 5000 }, (t) => {
  const fd = owned(t, memoryFile("far", 5 * 2 ** 30));
  writeAt(fd, list(native(7)), 2 ** 32 + 5);
  const target = new Native(2);
  assert.equal(readAt(fd, list(target), 2 ** 32 + 4), 2);
  assert.deepEqual([...target.bytes], [0, 7]);
  readAt(fd, list(target), 4);
  assert.deepEqual([...target.bytes], [0, 0]);
});

test("at the end of the file fewer bytes come, and the rest stays as it is", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "file");
  writeFileSync(path, "abcdef");
  const fd = owned(t, openFile(path, OpenFlag.READ_ONLY));
  const targets = [native(9, 9), native(9, 9, 9), native(9)];

  assert.equal(readAt(fd, list(...targets), 3), 3);
  assert.deepEqual(targets.map((each) => [...each.bytes]), [[0x64, 0x65], [0x66, 9, 9], [9]]);

  assert.equal(readAt(fd, list(...targets), 6), 0);
  assert.equal(readAt(fd, list(...targets), 1000), 0);
});

test("what is cached is read at once, all of it or not", { timeout: 5000 }, (t) => {
  const supported = readsCached(tempDir(t));
  const path = join(tempDir(t), "file");
  writeFileSync(path, Uint8Array.from({ length: 6000 }, (_, i) => i));
  const fd = owned(t, openFile(path, OpenFlag.READ_ONLY));
  const [first, second] = [new Native(100), new Native(1000)];
  assert.equal(readCached(fd, list(first, second), 4000), supported || undefined);
  if (!supported) readAt(fd, list(first, second), 4000);
  assert.ok(first.bytes.every((byte, i) => byte === (4000 + i & 0xff)));
  assert.ok(second.bytes.every((byte, i) => byte === (4100 + i & 0xff)));
  for (const behind of [5000, 7000]) {
    assert.equal(readCached(fd, list(first, second), behind), supported ? false : undefined, `at ${behind}`);
  }
});

test("more than the kernel moves in one call is read to its end", { timeout: 10_000 }, (t) => {
  // One call moves 2^31 - 4096 bytes at the most. All pieces but the last two read into the same memory.
  const most = 2 ** 31 - PAGE;
  const piece = 4 * MIB;
  const fd = owned(t, memoryFile("long", 3 * 2 ** 30));
  writeAt(fd, list(native(0x11)), most - 1);
  writeAt(fd, list(native(0x22)), most);
  writeAt(fd, list(native(0x33)), most + piece - 1);
  const { bytes } = memory(t, piece);
  const [before, after] = [new Native(piece), new Native(piece)];
  const sink = new Mapping(owned(t, memoryFile("sink", piece)), piece);
  onEnd(t, () => sink.unmap());

  const iovec = new Iovec();
  while (iovec.byteLength + piece <= most) iovec.push(Number(sink.address), piece);
  iovec.push(Number(before.address), most - iovec.byteLength);
  iovec.push(Number(after.address), piece);
  const wanted = iovec.byteLength;
  assert.equal(wanted, most + piece);

  assert.equal(readAt(fd, iovec, 0), wanted);
  assert.equal(before.bytes[piece - PAGE - 1], 0x11);
  assert.equal(after.bytes[0], 0x22);
  assert.equal(after.bytes[piece - 1], 0x33);
  assert.equal(bytes[0], 0);
});

test("a write that stops halfway goes on where it stopped", { timeout: 5000 }, (t) => {
  // The file may not grow: the kernel writes the pages that it has, and refuses the rest when asked again.
  const { fd, bytes } = memory(t, 2 * PAGE);
  addSeals(fd, Seal.GROW);
  const pages = [1, 2, 3].map((value) => {
    const page = new Native(PAGE);
    page.bytes.fill(value);
    return page;
  });
  const iovec = list(...pages);
  assert.throws(() => writeAt(fd, iovec, 0), {
    name: "OsError",
    call: "pwritev",
    code: "EPERM",
    message: `pwritev: EPERM (1) while writing ${3 * PAGE} bytes at 0`,
  });
  assert.deepEqual([bytes[0], bytes[PAGE], bytes[2 * PAGE - 1]], [1, 2, 2]);
  assert.deepEqual([iovec.count, iovec.byteLength], [1, PAGE], "the third page is left");
});

test("an empty list is nothing to do", { timeout: 5000 }, (t) => {
  const { fd } = memory(t, PAGE);
  assert.equal(readAt(fd, new Iovec(1), 0), 0);
  writeAt(fd, new Iovec(1), 0);
});

test("what goes wrong says how much, and where", { timeout: 5000 }, (t) => {
  const readOnly = owned(t, openFile("/dev/zero", OpenFlag.READ_ONLY));
  assert.throws(() => writeAt(readOnly, list(native(1, 2)), 512), {
    name: "OsError",
    message: "pwritev: EBADF (9) while writing 2 bytes at 512",
  });
  assert.throws(() => readAt(-1, list(native(1, 2, 3)), 1024), {
    name: "OsError",
    message: "preadv: EBADF (9) while reading 3 bytes at 1024",
  });
  const full = owned(t, openFile("/dev/full", OpenFlag.READ_WRITE));
  assert.throws(() => writeAt(full, list(native(1)), 0), { name: "OsError", code: "ENOSPC" });
});

test("a hole reads as zeros, takes no room and leaves the size", { timeout: 5000 }, (t) => {
  const { fd, bytes } = memory(t, 4 * PAGE);
  bytes.fill(0xff);
  assert.equal(allocate(fd, FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE, PAGE, 2 * PAGE), true);
  // Before the hole is read through the mapping, which gives it pages again.
  assert.equal(statSync(`/proc/self/fd/${fd}`).blocks, 2 * PAGE / 512);
  assert.deepEqual([bytes[PAGE - 1], bytes[PAGE], bytes[3 * PAGE - 1], bytes[3 * PAGE]], [0xff, 0, 0, 0xff]);
  assert.equal(fileStatus(fd).size, 4 * PAGE);
});

test("what a file system cannot do is no error", { timeout: 5000 }, (t) => {
  const { fd } = memory(t, PAGE);
  assert.equal(allocate(fd, 0x20, 0, PAGE), false, "no memory file can insert a range");
});

test("what cannot be done to this descriptor is one", { timeout: 5000 }, (t) => {
  const { fd } = memory(t, PAGE);
  assert.throws(() => allocate(fd, FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE, 0, 0), {
    name: "OsError",
    call: "fallocate",
    code: "EINVAL",
    message: "fallocate: EINVAL (22) while changing 0 bytes at 0",
  });
});

test("flushing a file is possible, flushing nothing is not", { timeout: 5000 }, (t) => {
  syncData(owned(t, openFile(join(tempDir(t), "file"), OpenFlag.READ_WRITE | OpenFlag.CREATE)));
  assert.throws(() => syncData(-1), { name: "OsError", call: "fdatasync", code: "EBADF" });
});

test("a file is created with its mode, once", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "new");
  const flags = OpenFlag.READ_WRITE | OpenFlag.CREATE | OpenFlag.EXCLUSIVE;
  const fd = owned(t, openFile(path, flags));
  assert.equal(statSync(path).mode & 0o777, 0o600);
  writeAt(fd, list(native(0x68, 0x69)), 0);
  assert.equal(readFileSync(path, "utf8"), "hi");
  assert.throws(() => openFile(path, flags), { name: "OsError", code: "EEXIST", message: new RegExp(path) });
});

test("a file opened for reading cannot be written", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "file");
  writeFileSync(path, "x");
  const fd = owned(t, openFile(path, OpenFlag.READ_ONLY));
  assert.throws(() => writeAt(fd, list(native(1)), 0), { name: "OsError", code: "EBADF" });
});
