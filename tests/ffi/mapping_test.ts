import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test, { type TestContext } from "node:test";
import { bufferAt, libc } from "../../ffi/deno.ts";
import { close } from "../../ffi/fd.ts";
import { allowAccess, Collage, Mapping, memoryFile } from "../../ffi/mapping.ts";
import { Native } from "../../ffi/native.ts";
import { onEnd } from "../support/cleanup.ts";
import { countMappings, countMemoryFiles } from "./descriptors.ts";

const GIB = 2 ** 30;

function file(t: TestContext, name: string, byteLength: number): number {
  const fd = memoryFile(name, byteLength);
  onEnd(t, () => close(fd));
  return fd;
}

function map(t: TestContext, fd: number, byteLength: number, offset = 0): Mapping {
  const mapping = new Mapping(fd, byteLength, offset);
  onEnd(t, () => mapping.unmap());
  return mapping;
}

/** A byte of a file, asked from the kernel rather than from a mapping. */
function byteAt(fd: number, position: number): number {
  const target = new Native(1);
  const piece = new Native(16);
  piece.set64(0, target.address);
  piece.set64(8, 1n);
  assert.equal(libc.preadv(fd, piece.address, 1, BigInt(position)), 1);
  return target.bytes[0];
}

test("two mappings of a file are the same memory", { timeout: 5000 }, (t) => {
  const fd = file(t, "shared", 8192);
  const whole = map(t, fd, 8192);
  const second = map(t, fd, 4096, 4096);
  assert.notEqual(whole.address, second.address);
  new Uint8Array(whole.buffer)[4096 + 5] = 42;
  assert.equal(new Uint8Array(second.buffer)[5], 42);
  assert.equal(byteAt(fd, 4096 + 5), 42);
});

test("the address is where the buffer is", { timeout: 5000 }, (t) => {
  const mapping = map(t, file(t, "address", 4096), 4096);
  new Uint8Array(mapping.buffer)[100] = 7;
  assert.equal(new Uint8Array(bufferAt(mapping.address, 4096))[100], 7);
  assert.equal(mapping.byteLength, 4096);
  assert.equal(mapping.address % 4096n, 0n);
});

test("a mapping outlives the descriptor", { timeout: 5000 }, (t) => {
  const fd = memoryFile("orphan", 4096);
  const mapping = map(t, fd, 4096);
  close(fd);
  const bytes = new Uint8Array(mapping.buffer);
  bytes[4095] = 9;
  assert.equal(bytes[4095], 9);
});

test(
  "after unmap the memory has gone, and every view of it is empty instead of deadly",
  { timeout: 5000 },
  (t) => {
    const mapping = map(t, file(t, "gone", 4096), 4096);
    const { buffer } = mapping;
    const bytes = new Uint8Array(buffer, 16, 64);
    const words = new Uint32Array(buffer);
    const view = new DataView(buffer, 8, 8);
    bytes[0] = 1;
    assert.equal(countMappings("gone"), 1);

    mapping.unmap();

    assert.equal(countMappings("gone"), 0);
    assert.equal(buffer.byteLength, 0);
    assert.equal(buffer.detached, true);
    assert.deepEqual([bytes.length, words.length], [0, 0]);
    assert.equal(bytes[0], undefined);
    bytes[0] = 2;
    assert.equal(bytes[0], undefined);
    assert.throws(() => view.getUint32(0), TypeError);
    assert.throws(
      () => Atomics.load(words, 0),
      (error) => error instanceof TypeError || error instanceof RangeError,
    );
  },
);

test("unmapping twice is unmapping once", { timeout: 5000 }, (t) => {
  const fd = file(t, "twice", 4096);
  const first = map(t, fd, 4096);
  first.unmap();
  const second = map(t, fd, 4096);
  first.unmap();
  new Uint8Array(second.buffer)[0] = 5;
  assert.equal(byteAt(fd, 0), 5);
  assert.equal(countMappings("twice"), 1);
});

test("5 GiB are one buffer, down to the last byte", { timeout: 5000 }, (t) => {
  const fd = file(t, "sparse", 5 * GIB);
  const mapping = map(t, fd, 5 * GIB);
  assert.equal(mapping.buffer.byteLength, 5 * GIB);
  const bytes = new Uint8Array(mapping.buffer);
  bytes[5 * GIB - 1] = 0xee;
  bytes[4 * GIB] = 0xdd;
  assert.equal(byteAt(fd, 5 * GIB - 1), 0xee);
  assert.equal(byteAt(fd, 4 * GIB), 0xdd);
  assert.equal(byteAt(fd, GIB - 1), 0, "not wrapped around");
  assert.equal(byteAt(fd, 0), 0);
});

test("a mapping may start beyond 4 GiB of its file", { timeout: 5000 }, (t) => {
  const fd = file(t, "far", 5 * GIB);
  const mapping = map(t, fd, 4096, 4 * GIB);
  new Uint8Array(mapping.buffer)[1] = 3;
  assert.equal(byteAt(fd, 4 * GIB + 1), 3);
});

test("what cannot be mapped says what and why", { timeout: 5000 }, (t) => {
  const fd = file(t, "refused", 4096);
  assert.throws(() => new Mapping(fd, 4096, 1), {
    name: "OsError",
    call: "mmap",
    code: "EINVAL",
    message: `mmap: EINVAL (22) while mapping 4096 bytes at 1 of descriptor ${fd}`,
  });
  assert.throws(() => new Mapping(-1, 4096), { name: "OsError", call: "mmap", code: "EBADF" });
});

test("a memory file starts zeroed, with its name and size", { timeout: 5000 }, (t) => {
  const fd = file(t, "by-name", 4096);
  assert.equal(countMemoryFiles("by-name"), 1);
  assert.ok(new Uint8Array(map(t, fd, 4096).buffer).every((byte) => byte === 0));
});

test("a memory file that cannot be made leaves no descriptor", { timeout: 5000 }, () => {
  assert.throws(() => memoryFile("negative", -1), { name: "OsError", call: "ftruncate", code: "EINVAL" });
  assert.equal(countMemoryFiles("negative"), 0);
  assert.throws(() => memoryFile("x".repeat(300), 4096), {
    name: "OsError",
    call: "memfd_create",
    code: "EINVAL",
    message: /while creating the memory file x+$/,
  });
});

test("a mapping without access gets it later", { timeout: 5000 }, (t) => {
  const rights = (): (string | undefined)[] =>
    readFileSync("/proc/self/maps", "utf8").split("\n").filter((line) => line.includes("/memfd:closed-page "))
      .map((line) => line.split(" ")[1]);
  const mapping = new Mapping(file(t, "closed-page", 4096), 4096, 0, false);
  onEnd(t, () => mapping.unmap());
  assert.deepEqual(rights(), ["---s"]);
  allowAccess(mapping.address, mapping.byteLength);
  assert.deepEqual(rights(), ["rw-s"]);
  new Uint8Array(mapping.buffer)[0] = 1;
  mapping.unmap();
  assert.deepEqual(rights(), []);
});

test("a collage has scattered pages in a row, and shares them", { timeout: 5000 }, (t) => {
  const first = map(t, file(t, "scattered", 4 * 4096), 4 * 4096);
  const second = map(t, file(t, "elsewhere", 4096), 4096);
  [first, second].forEach(({ buffer }, i) => {
    const bytes = new Uint8Array(buffer);
    for (let page = 0; page < buffer.byteLength / 4096; page++) bytes[page * 4096] = 10 * (i + 1) + page;
  });
  const collage = new Collage([
    { address: first.address + 2n * 4096n, byteLength: 2 * 4096 },
    { address: second.address, byteLength: 4096 },
    { address: first.address, byteLength: 4096 },
  ]);
  onEnd(t, () => collage.unmap());
  const bytes = new Uint8Array(collage.buffer);
  assert.deepEqual([0, 1, 2, 3].map((page) => bytes[page * 4096]), [12, 13, 20, 10]);

  bytes[2 * 4096 - 1] = 99;
  assert.equal(new Uint8Array(first.buffer)[4 * 4096 - 1], 99);
  first.unmap();
  assert.equal(bytes[4096], 13, "the pages stay");
  collage.unmap();
  collage.unmap();
  assert.equal(bytes.length, 0);
  assert.deepEqual([countMappings("scattered"), countMappings("elsewhere")], [0, 1]);
});

test("private pages cannot be in a collage", { timeout: 5000 }, () => {
  const own = new Native(3 * 4096);
  const address = (own.address + 4095n) & ~4095n;
  assert.throws(() => new Collage([{ address, byteLength: 4096 }]), {
    name: "OsError",
    call: "mremap",
    code: "EINVAL",
    message: "mremap: EINVAL (22) while mapping 4096 bytes a second time",
  });
});

test("there is no memory at address 0", { timeout: 5000 }, () => {
  assert.throws(() => bufferAt(0n, 8), { name: "RangeError", message: "no memory at address 0" });
});
