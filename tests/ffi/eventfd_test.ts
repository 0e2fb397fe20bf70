import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { libc } from "../../ffi/deno.ts";
import { consume, eventfd, signal } from "../../ffi/eventfd.ts";
import { close } from "../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { Native } from "../../ffi/native.ts";
import { socketPair } from "../../ffi/socket.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";

function event(t: TestContext): number {
  const fd = eventfd();
  onEnd(t, () => close(fd));
  return fd;
}

/** Both ends of a pipe: to read from, to write to. */
function pipe(t: TestContext): [number, number] {
  const nonBlocking = 0o4000;
  const path = join(tempDir(t), "pipe");
  execFileSync("mkfifo", [path]);
  const reader = openFile(path, OpenFlag.READ_ONLY | nonBlocking);
  const writer = openFile(path, 1 | nonBlocking);
  return [reader, writer];
}

test("quiet, then rung, then quiet again", { timeout: 5000 }, (t) => {
  const fd = event(t);
  assert.equal(consume(fd), "quiet");
  assert.equal(signal(fd), true);
  assert.equal(consume(fd), "rung");
  assert.equal(consume(fd), "quiet");
});

test("ringing many times is heard once", { timeout: 5000 }, (t) => {
  const fd = event(t);
  for (let i = 0; i < 5; i++) signal(fd);
  assert.equal(consume(fd), "rung");
  assert.equal(consume(fd), "quiet");
});

test("a counter that is full rings already", { timeout: 5000 }, (t) => {
  const fd = event(t);
  const most = new Native(8);
  most.set64(0, 2n ** 64n - 2n);
  assert.equal(libc.write(fd, most.address, 8n), 8);
  assert.equal(signal(fd), true);
  assert.equal(consume(fd), "rung");
});

test("a pipe serves as a doorbell", { timeout: 5000 }, (t) => {
  const [reader, writer] = pipe(t);
  assert.equal(consume(reader), "quiet");
  assert.equal(signal(writer), true);
  assert.equal(consume(reader), "rung");
  close(writer);
  close(reader);
});

test("once the last writer has left, a pipe is gone", { timeout: 5000 }, (t) => {
  const [reader, writer] = pipe(t);
  signal(writer);
  close(writer);
  assert.equal(consume(reader), "rung", "what was rung before is heard");
  assert.equal(consume(reader), "gone");
  close(reader);
});

test("nobody hears a pipe without reader, and this process lives on", { timeout: 5000 }, (t) => {
  const [reader, writer] = pipe(t);
  close(reader);
  assert.equal(signal(writer), false);
  close(writer);
});

test("a socket whose peer has left is gone", { timeout: 5000 }, (t) => {
  const [ours, theirs] = socketPair();
  onEnd(t, () => close(ours));
  assert.equal(consume(ours), "quiet");
  close(theirs);
  assert.equal(consume(ours), "gone");
  assert.equal(signal(ours), false);
});

test("what is not open, or cannot be read, is gone", { timeout: 5000 }, (t) => {
  assert.equal(consume(-1), "gone");
  assert.equal(signal(-1), false);
  const [reader, writer] = pipe(t);
  assert.equal(consume(writer), "gone");
  assert.equal(signal(reader), false);
  close(reader);
  close(writer);
});
