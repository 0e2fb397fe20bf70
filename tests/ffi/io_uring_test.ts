import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { close, linkTarget } from "../../ffi/fd.ts";
import { FallocateMode, openFile, OpenFlag } from "../../ffi/file.ts";
import { IoUring } from "../../ffi/io_uring.ts";
import { Iovec } from "../../ffi/iovec.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { Native } from "../../ffi/native.ts";
import { Epoll } from "../../ffi/epoll.ts";
import { Errno } from "../../ffi/os_error.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";

const LIMIT = { timeout: 10_000 };

interface Scene {
  readonly ring: IoUring;
  readonly path: string;
  readonly fd: number;
  /** Results by token, waiting for as many as are under way. */
  results(): Map<number, number>;
}

function scene(t: TestContext, content: Uint8Array, batch = 8, capacity = 16): Scene {
  const path = join(tempDir(t), "file");
  writeFileSync(path, content);
  const fd = openFile(path, OpenFlag.READ_WRITE);
  const ring = new IoUring(batch, capacity);
  onEnd(t, () => {
    ring.close();
    close(fd);
  });
  const results = (): Map<number, number> => {
    const found = new Map<number, number>();
    ring.submit();
    while (ring.inFlight > 0) {
      ring.wait();
      ring.take((token, result) => {
        assert.equal(found.has(token), false, `token ${token} twice`);
        found.set(token, result);
      });
    }
    return found;
  };
  return { ring, path, fd, results };
}

const counting = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i & 0xff);

test("reads and writes go to their places, with their tokens", LIMIT, (t) => {
  const { ring, path, fd, results } = scene(t, counting(8192));
  const memory = new Native(4096);
  const at = Number(memory.address);
  ring.read(0xffff_fffe, fd, at, 100, 4000);
  ring.read(7, fd, at + 100, 100, 8142);
  assert.deepEqual([...results()].sort(), [[0xffff_fffe, 100], [7, 50]], "a short read at the end");
  assert.deepEqual(
    memory.bytes.slice(0, 150),
    new Uint8Array([...counting(8192).slice(4000, 4100), ...counting(8192).slice(8142)]),
  );

  const list = new Iovec();
  memory.bytes.fill(0xaa, 0, 50).fill(0xbb, 200, 250);
  list.push(at, 50);
  list.push(at + 200, 50);
  ring.writeVector(1, fd, Number(list.address), 2, 1000);
  ring.submit();
  // The list may be used for the next one.
  list.clear();
  assert.deepEqual([...results()], [[1, 100]]);
  const expected = counting(8192).fill(0xaa, 1000, 1050).fill(0xbb, 1050, 1100);
  assert.deepEqual(new Uint8Array(readFileSync(path)), expected);

  list.push(at + 300, 25);
  list.push(at + 400, 75);
  ring.readVector(2, fd, Number(list.address), 2, 1030);
  assert.deepEqual([...results()], [[2, 100]]);
  assert.deepEqual(memory.bytes.slice(300, 325), expected.slice(1030, 1055));
  assert.deepEqual(memory.bytes.slice(400, 475), expected.slice(1055, 1130));
});

test("positions beyond 4 GiB", LIMIT, (t) => {
  const { ring, path, fd, results } = scene(t, new Uint8Array(0));
  const memory = new Native(512);
  memory.bytes.fill(0x5a);
  const far = 5 * 2 ** 30 + 512;
  ring.write(1, fd, Number(memory.address), 512, far);
  assert.deepEqual([...results()], [[1, 512]]);
  assert.equal(statSync(path).size, far + 512);
  memory.bytes.fill(0);
  ring.read(2, fd, Number(memory.address), 512, far);
  assert.deepEqual([...results()], [[2, 512]]);
  assert.equal(memory.bytes[511], 0x5a);
});

test("flushing, punching holes, and what fails", LIMIT, (t) => {
  const { ring, path, fd, results } = scene(t, counting(1 << 16));
  ring.syncData(1, fd);
  ring.allocate(2, fd, FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE, 4096, 8192);
  ring.syncData(3, 9999);
  ring.read(4, fd, 4096, 100, 0);
  const found = results();
  assert.deepEqual(
    [found.get(1), found.get(2), found.get(3), found.get(4)],
    [0, 0, -9, -14],
    "EBADF, EFAULT",
  );
  assert.deepEqual(new Uint8Array(readFileSync(path)), counting(1 << 16).fill(0, 4096, 12288));
});

test("more than fits in one batch, and as much as may be under way", LIMIT, (t) => {
  const { ring, fd, results } = scene(t, counting(4096), 4, 64);
  const memory = new Native(64);
  for (let round = 0; round < 50; round++) {
    let count = 0;
    for (; !ring.full; count++) ring.read(count, fd, Number(memory.address) + count, 1, count + round);
    assert.equal(count, ring.capacity);
    const found = results();
    assert.equal(found.size, count);
    assert.ok([...found.values()].every((result) => result === 1));
    assert.deepEqual(memory.bytes, counting(4096).slice(round, round + 64));
  }
});

test("the eventfd tells of what completes, unless it is to be quiet", LIMIT, (t) => {
  const { ring, fd, results } = scene(t, counting(4096));
  const epoll = new Epoll();
  onEnd(t, () => epoll.close());
  epoll.add(ring.eventFd);
  const memory = new Native(64);
  ring.quiet = true;
  ring.read(1, fd, Number(memory.address), 1, 0);
  results();
  assert.equal(epoll.wait(0), 0);
  ring.quiet = false;
  ring.read(1, fd, Number(memory.address), 1, 0);
  ring.submit();
  assert.equal(epoll.wait(5000), 1);
  assert.equal(ring.completed(), true);
  results();
  assert.equal(ring.completed(), false);
});

test("what cannot be made says so and leaves nothing open", LIMIT, () => {
  assert.throws(() => new IoUring(0, 16), { name: "OsError", call: "io_uring_setup", errno: Errno.EINVAL });
});

/** The descriptors of this process that are io_uring queues. */
function queues(): number[] {
  return readdirSync("/proc/self/fd").map(Number).filter((fd) => {
    try {
      return linkTarget(fd) === "anon_inode:[io_uring]";
    } catch {
      return false; // The one that has just read the directory.
    }
  });
}

test("the kernel refuses every operation but ours, whoever writes it into the queue", LIMIT, (t) => {
  const before = queues();
  const { ring, path, fd, results } = scene(t, counting(4096));
  const [queue] = queues().filter((each) => !before.includes(each));
  const entries = new Mapping(queue, 64 * 8, 0x1000_0000);
  onEnd(t, () => entries.unmap());
  const opcodes = new Uint8Array(entries.buffer);
  const memory = new Native(4096);
  memory.bytes.set(new TextEncoder().encode(`${path}\0`));
  // Of Linux 6.12 (include/uapi/linux/io_uring.h).
  const OPENAT = 18;
  for (let opcode = 0; opcode < 58; opcode++) {
    if ([1, 2, 3, 17, 22, 23].includes(opcode)) continue;
    ring.read(opcode, fd, Number(memory.address), 0, 0);
    const at = opcodes.indexOf(22);
    assert.ok(at >= 0, "what was prepared is found");
    opcodes[at] = opcode;
    assert.deepEqual([...results()], [[opcode, -Errno.EACCES]], `operation ${opcode}`);
    opcodes.fill(0);
  }
  ring.read(OPENAT, fd, Number(memory.address), 100, 0);
  assert.deepEqual([...results()], [[OPENAT, 100]], "what it is for goes on");
});
