import assert from "node:assert/strict";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { Epoll, EpollEvent } from "../../ffi/epoll.ts";
import { consume, eventfd, signal } from "../../ffi/eventfd.ts";
import { close, isOpen } from "../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { shutdown, socketPair } from "../../ffi/socket.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";

function owned(t: TestContext, fd: number): number {
  onEnd(t, () => close(fd));
  return fd;
}

function waitSet(t: TestContext): Epoll {
  const epoll = new Epoll();
  onEnd(t, () => epoll.close());
  return epoll;
}

function ready(epoll: Epoll, timeout = 0): number[] {
  const n = epoll.wait(timeout);
  return epoll.ready.slice(0, n).sort((a, b) => a - b);
}

test("only what is ready is listed", { timeout: 5000 }, (t) => {
  const epoll = waitSet(t);
  const events = [eventfd(), eventfd(), eventfd()].map((fd) => owned(t, fd));
  for (const fd of events) epoll.add(fd);
  assert.deepEqual(ready(epoll), []);

  signal(events[0]);
  signal(events[2]);
  assert.deepEqual(ready(epoll), [events[0], events[2]]);
});

test("what is not taken is listed again, what is taken is not", { timeout: 5000 }, (t) => {
  const epoll = waitSet(t);
  const fd = owned(t, eventfd());
  epoll.add(fd);
  signal(fd);
  assert.deepEqual([ready(epoll), ready(epoll)], [[fd], [fd]]);
  consume(fd);
  assert.deepEqual(ready(epoll), []);
});

test("a one-shot is listed once, until it is armed anew", { timeout: 5000 }, (t) => {
  const epoll = waitSet(t);
  const fd = owned(t, eventfd());
  const once = EpollEvent.IN | EpollEvent.ONE_SHOT;
  epoll.add(fd, once);
  signal(fd);
  assert.deepEqual([ready(epoll), ready(epoll)], [[fd], []]);
  signal(fd);
  assert.deepEqual(ready(epoll), []);
  epoll.modify(fd, once);
  assert.deepEqual([ready(epoll), ready(epoll)], [[fd], []]);
  const other = owned(t, eventfd());
  assert.throws(() => epoll.modify(other, once), { name: "OsError", call: "epoll_ctl", code: "ENOENT" });
});

test("a set can be waited for as well", { timeout: 5000 }, (t) => {
  const [inner, outer] = [waitSet(t), waitSet(t)];
  const fd = owned(t, eventfd());
  inner.add(fd);
  outer.add(inner.fd);
  assert.deepEqual(ready(outer), []);
  signal(fd);
  assert.deepEqual(ready(outer), [inner.fd]);
});

test("a peer that leaves makes its socket ready", { timeout: 5000 }, (t) => {
  const epoll = waitSet(t);
  const [ours, theirs] = socketPair().map((fd) => owned(t, fd));
  epoll.add(ours);
  assert.deepEqual(ready(epoll), []);
  shutdown(theirs);
  assert.deepEqual(ready(epoll), [ours]);
});

test(
  "what was taken out of the set is not listed; taking it out twice is no error",
  { timeout: 5000 },
  (t) => {
    const epoll = waitSet(t);
    const fd = owned(t, eventfd());
    epoll.add(fd);
    signal(fd);
    epoll.delete(fd);
    epoll.delete(fd);
    assert.deepEqual(ready(epoll), []);
    epoll.add(fd);
    assert.deepEqual(ready(epoll), [fd]);
  },
);

test("waiting takes as long as it was told", { timeout: 5000 }, (t) => {
  const epoll = waitSet(t);
  const start = performance.now();
  assert.equal(epoll.wait(30), 0);
  const took = performance.now() - start;
  assert.ok(took >= 29, `${took} ms`);
});

test("what cannot be waited for says so", { timeout: 5000 }, (t) => {
  const epoll = waitSet(t);
  const file = owned(t, openFile(join(tempDir(t), "file"), OpenFlag.READ_WRITE | OpenFlag.CREATE));
  assert.throws(() => epoll.add(file), {
    name: "OsError",
    call: "epoll_ctl",
    code: "EPERM",
    message: `epoll_ctl: EPERM (1) while waiting for descriptor ${file}`,
  });
  const fd = owned(t, eventfd());
  epoll.add(fd);
  assert.throws(() => epoll.add(fd), { name: "OsError", code: "EEXIST" });
  assert.throws(() => epoll.add(-1), { name: "OsError", code: "EBADF" });
});

test("closing the set leaves the others open", { timeout: 5000 }, (t) => {
  const epoll = new Epoll();
  const fd = owned(t, eventfd());
  epoll.add(fd);
  epoll.close();
  assert.deepEqual([isOpen(epoll.fd), isOpen(fd)], [false, true]);
  assert.throws(() => epoll.wait(0), { name: "OsError", call: "epoll_wait", code: "EBADF" });
});

test("100 that are ready are listed in turns of 64 at most", { timeout: 5000 }, (t) => {
  const epoll = waitSet(t);
  const all = new Set(Array.from({ length: 100 }, () => owned(t, eventfd())));
  for (const fd of all) {
    epoll.add(fd);
    signal(fd);
  }
  while (all.size > 0) {
    const some = ready(epoll);
    assert.ok(some.length > 0 && some.length <= 64, `${some.length}`);
    for (const fd of some) {
      assert.ok(all.delete(fd));
      consume(fd);
    }
  }
});
