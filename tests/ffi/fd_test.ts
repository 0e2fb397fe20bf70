import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { libc } from "../../ffi/deno.ts";
import { Epoll } from "../../ffi/epoll.ts";
import { eventfd } from "../../ffi/eventfd.ts";
import {
  addSeals,
  blockDeviceSize,
  close,
  DescriptorBag,
  duplicate,
  fileStatus,
  getSeals,
  isOpen,
  readBytes,
  Seal,
  setNonblocking,
  writeBytes,
} from "../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { memoryFile, resizeFile } from "../../ffi/mapping.ts";
import { Native } from "../../ffi/native.ts";
import { accept, connect, listen, socketPair } from "../../ffi/socket.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { descriptorFlags } from "./descriptors.ts";

function owned(t: TestContext, fd: number): number {
  onEnd(t, () => close(fd));
  return fd;
}

test("every descriptor that is made is closed on exec", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "s");
  const listening = listen(path);
  const epoll = new Epoll();
  const pair = socketPair();
  const made = {
    listen: listening,
    connect: connect(path),
    accept: accept(listening) ?? -1,
    socketPair: pair[0],
    socketPairToo: pair[1],
    eventfd: eventfd(),
    epoll: epoll.fd,
    memoryFile: memoryFile("exec", 4096),
    openFile: openFile("/dev/null", OpenFlag.READ_ONLY),
    duplicate: duplicate(listening),
  };
  for (const [name, fd] of Object.entries(made)) {
    owned(t, fd);
    assert.equal(descriptorFlags(fd).closeOnExec, true, name);
  }
  for (const name of ["listen", "connect", "accept", "socketPair", "socketPairToo", "eventfd"] as const) {
    assert.equal(descriptorFlags(made[name]).nonBlocking, true, name);
  }
});

test("a duplicate is the same open file under another number", { timeout: 5000 }, (t) => {
  const fd = memoryFile("twin", 4096);
  const copy = owned(t, duplicate(fd));
  assert.notEqual(copy, fd);
  assert.equal(fileStatus(copy).inode, fileStatus(fd).inode);
  close(fd);
  assert.equal(isOpen(fd), false);
  assert.equal(isOpen(copy), true);
  assert.throws(() => duplicate(fd), {
    name: "OsError",
    code: "EBADF",
    message: `fcntl: EBADF (9) while duplicating descriptor ${fd}`,
  });
});

test("a blocking descriptor is made non-blocking, once or twice", { timeout: 5000 }, (t) => {
  const fd = owned(t, openFile("/dev/null", OpenFlag.READ_WRITE));
  assert.equal(descriptorFlags(fd).nonBlocking, false);
  for (let i = 0; i < 2; i++) {
    setNonblocking(fd);
    assert.equal(descriptorFlags(fd).nonBlocking, true);
  }
  assert.throws(() => setNonblocking(-1), { name: "OsError", code: "EBADF" });
});

test("a sealed memory file does not shrink", { timeout: 5000 }, (t) => {
  const fd = owned(t, memoryFile("sealed", 8192));
  assert.equal(getSeals(fd), 0);
  addSeals(fd, Seal.SHRINK | Seal.SEAL);
  assert.equal(getSeals(fd), Seal.SHRINK | Seal.SEAL);
  assert.throws(() => resizeFile(fd, 4096), {
    name: "OsError",
    call: "ftruncate",
    code: "EPERM",
    message: `ftruncate: EPERM (1) while setting the size of descriptor ${fd} to 4096 bytes`,
  });
  resizeFile(fd, 16384);
  assert.equal(fileStatus(fd).size, 16384);
  assert.throws(() => addSeals(fd, Seal.GROW), { name: "OsError", call: "fcntl", code: "EPERM" });
});

test("what cannot be sealed has no seals", { timeout: 5000 }, (t) => {
  const fd = owned(t, openFile("/dev/null", OpenFlag.READ_WRITE));
  assert.equal(getSeals(fd), 0);
  assert.throws(() => addSeals(fd, Seal.SHRINK), { name: "OsError", code: "EINVAL" });
});

test("descriptors tell what they are", { timeout: 5000 }, (t) => {
  const dir = tempDir(t);
  const fifo = join(dir, "fifo");
  execFileSync("mkfifo", [fifo]);
  writeFileSync(join(dir, "file"), "12345");
  const [ours, theirs] = socketPair();
  owned(t, theirs);
  const kinds = {
    "file": openFile(join(dir, "file"), OpenFlag.READ_ONLY),
    "pipe": openFile(fifo, OpenFlag.READ_WRITE),
    "directory": openFile(dir, OpenFlag.PATH_ONLY),
    "socket": ours,
    "character device": openFile("/dev/null", OpenFlag.READ_ONLY),
    "other": eventfd(),
  };
  for (const [kind, fd] of Object.entries(kinds)) {
    assert.equal(fileStatus(owned(t, fd)).kind, kind);
  }
});

test("a block device tells what it is", { timeout: 5000 }, (t) => {
  const name = readdirSync("/dev").find((each) => {
    try {
      return statSync(`/dev/${each}`).isBlockDevice();
    } catch {
      return false;
    }
  });
  if (name === undefined) return t.skip("no block device here");
  assert.equal(fileStatus(owned(t, openFile(`/dev/${name}`, OpenFlag.PATH_ONLY))).kind, "block device");
});

test("only a block device is asked for its size in blocks", { timeout: 5000 }, (t) => {
  assert.throws(() => blockDeviceSize(owned(t, openFile("/dev/null", OpenFlag.READ_ONLY))), {
    name: "OsError",
    call: "ioctl",
    code: "ENOTTY",
  });
});

test("the status of a file is what stat says", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "file");
  writeFileSync(path, "x".repeat(12345), { mode: 0o640 });
  const fd = owned(t, openFile(path, OpenFlag.READ_ONLY));
  const expected = statSync(path, { bigint: true });
  const major = ((expected.dev >> 8n) & 0xfffn) | ((expected.dev >> 32n) & ~0xfffn);
  const minor = (expected.dev & 0xffn) | ((expected.dev >> 12n) & 0xffff_ff00n);
  assert.deepEqual(fileStatus(fd), {
    kind: "file",
    mode: Number(expected.mode & 0o7777n),
    size: 12345,
    blockSize: Number(expected.blksize),
    inode: expected.ino,
    device: major << 32n | minor,
    uid: Number(expected.uid),
  });
  assert.throws(() => fileStatus(-1), { name: "OsError", call: "statx", code: "EBADF" });
});

test("a size beyond 4 GiB is told exactly", { timeout: 5000 }, (t) => {
  assert.equal(fileStatus(owned(t, memoryFile("large", 2 ** 33 + 1))).size, 2 ** 33 + 1);
});

test("bytes are read as they come: some, none yet, the end", { timeout: 5000 }, (t) => {
  const fifo = join(tempDir(t), "fifo");
  execFileSync("mkfifo", [fifo]);
  const nonBlocking = 0o4000;
  const reader = owned(t, openFile(fifo, OpenFlag.READ_ONLY | nonBlocking));
  const writer = openFile(fifo, OpenFlag.READ_WRITE);
  assert.equal(readBytes(reader), null);
  const hello = Native.string("hello");
  assert.equal(libc.write(writer, hello.address, 5n), 5);
  assert.deepEqual(readBytes(reader, 2), new TextEncoder().encode("he"));
  assert.deepEqual(readBytes(reader), new TextEncoder().encode("llo"));
  close(writer);
  assert.deepEqual(readBytes(reader), new Uint8Array(0));
  assert.throws(() => readBytes(-1), { name: "OsError", call: "read", code: "EBADF" });
});

test("bytes are written as they fit: 4096 at most, none when full, EPIPE when nobody reads", {
  timeout: 5000,
}, (t) => {
  const [ours, theirs] = socketPair();
  owned(t, ours);
  assert.equal(writeBytes(ours, new TextEncoder().encode("hello")), 5);
  assert.deepEqual(readBytes(theirs), new TextEncoder().encode("hello"));

  const many = new Uint8Array(10_000).fill(7);
  assert.equal(writeBytes(ours, many), 4096);
  assert.deepEqual(readBytes(theirs), many.slice(0, 4096));
  let n: number | null = 0;
  while (n !== null) n = writeBytes(ours, many);

  close(theirs);
  assert.throws(() => writeBytes(ours, many), {
    name: "OsError",
    code: "EPIPE",
    message: `write: EPIPE (32) while writing descriptor ${ours}`,
  });
});

test("a bag closes what nobody took", { timeout: 5000 }, (t) => {
  const fds = [eventfd(), eventfd(), eventfd()];
  const bag = new DescriptorBag(fds);
  assert.deepEqual([bag.length, bag.list()], [3, fds]);

  const taken = bag.take();
  assert.equal(taken, fds[0], "the first that came");
  owned(t, fds[0]);
  assert.equal(bag.length, 2);

  bag.close();
  bag.close();
  assert.deepEqual(fds.map(isOpen), [true, false, false]);
  assert.equal(bag.take(), undefined);
});

test("a bag takes over what another one has", { timeout: 5000 }, () => {
  const [a, b] = [new DescriptorBag([eventfd()]), new DescriptorBag([eventfd()])];
  const all = [...a.list(), ...b.list()];
  a.append(b);
  assert.deepEqual([a.length, b.length], [2, 0]);
  b.close();
  assert.deepEqual(all.map(isOpen), [true, true]);
  a.close();
  assert.deepEqual(all.map(isOpen), [false, false]);
});

test("who takes all closes all", { timeout: 5000 }, (t) => {
  const bag = new DescriptorBag([eventfd(), eventfd()]);
  const all = bag.takeAll().map((fd) => owned(t, fd));
  bag.close();
  assert.deepEqual(all.map(isOpen), [true, true]);
});
