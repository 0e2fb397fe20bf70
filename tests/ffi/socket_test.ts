import assert from "node:assert/strict";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { libc } from "../../ffi/deno.ts";
import { close, fileStatus, isOpen } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { Native } from "../../ffi/native.ts";
import {
  accept,
  connect,
  listen,
  MAX_DESCRIPTORS,
  receive,
  send,
  setSendBuffer,
  shutdown,
  shutdownReceiving,
  socketPair,
} from "../../ffi/socket.ts";
import { tempDir } from "../support/cleanup.ts";
import { countMemoryFiles, descriptorFlags } from "./descriptors.ts";

const buffer = new Native(1 << 16);

function pair(t: TestContext): [number, number] {
  const [ours, theirs] = socketPair();
  t.after(() => {
    for (const fd of [ours, theirs]) close(fd);
  });
  return [ours, theirs];
}

function gift(t: TestContext, name: string): number {
  const fd = memoryFile(name, 4096);
  t.after(() => close(fd));
  return fd;
}

function say(fd: number, text: string, fds: readonly number[] = []): number {
  const bytes = new TextEncoder().encode(text);
  buffer.bytes.set(bytes);
  return send(fd, buffer.address, bytes.length, fds);
}

/** What was heard, and how many bytes; the bag is the caller's. */
function hear(fd: number, most = 100): { text: string } & ReturnType<typeof receive> {
  const received = receive(fd, buffer.address, most);
  return { text: new TextDecoder().decode(buffer.bytes.slice(0, Math.max(0, received.length))), ...received };
}

/** One byte with more descriptors than `send` would take, in one control message. */
function sendMany(socket: number, fd: number, count: number): void {
  const control = new Native(16 + 4 * count);
  control.set64(0, BigInt(16 + 4 * count));
  control.set32(8, 1); // SOL_SOCKET
  control.set32(12, 1); // SCM_RIGHTS
  for (let i = 0; i < count; i++) control.set32(16 + 4 * i, fd);
  const piece = new Native(16);
  piece.set64(0, buffer.address);
  piece.set64(8, 1n);
  const message = new Native(56);
  message.set64(16, piece.address);
  message.set64(24, 1n);
  message.set64(32, control.address);
  message.set64(40, BigInt(16 + 4 * count));
  assert.equal(libc.sendmsg(socket, message.address, 0), 1);
}

test("descriptors arrive with the bytes, as copies", { timeout: 5000 }, (t) => {
  const [ours, theirs] = pair(t);
  const files = [gift(t, "first"), gift(t, "second"), gift(t, "third")];

  assert.equal(say(ours, "here", files), 4);
  const { text, fds, truncated } = hear(theirs);

  assert.equal(text, "here");
  assert.equal(truncated, false);
  const copies = fds.takeAll();
  t.after(() => copies.forEach(close));
  assert.deepEqual(copies.map((fd) => fileStatus(fd).inode), files.map((fd) => fileStatus(fd).inode));
  assert.ok(copies.every((fd) => !files.includes(fd)));
});

test("a received descriptor is closed on exec", { timeout: 5000 }, (t) => {
  const [ours, theirs] = pair(t);
  say(ours, "x", [gift(t, "exec")]);
  const { fds } = hear(theirs);
  assert.equal(descriptorFlags(fds.list()[0]).closeOnExec, true);
  fds.close();
});

test("descriptors come with the first byte only", { timeout: 5000 }, (t) => {
  const [ours, theirs] = pair(t);
  say(ours, "abcdef", [gift(t, "early")]);

  const start = hear(theirs, 2);
  assert.deepEqual([start.text, start.fds.length], ["ab", 1]);
  start.fds.close();

  const rest = hear(theirs);
  assert.deepEqual([rest.text, rest.fds.length], ["cdef", 0]);
});

test("one reading does not mix the descriptors of two messages", { timeout: 5000 }, (t) => {
  const [ours, theirs] = pair(t);
  say(ours, "one", [gift(t, "one")]);
  say(ours, "two", [gift(t, "two"), gift(t, "two")]);

  for (const [text, count] of [["one", 1], ["two", 2]] as const) {
    const heard = hear(theirs);
    assert.deepEqual([heard.text, heard.fds.length], [text, count]);
    heard.fds.close();
  }
});

test("32 descriptors are let through", { timeout: 5000 }, (t) => {
  const [ours, theirs] = pair(t);
  assert.equal(MAX_DESCRIPTORS, 32);
  say(ours, "x", new Array(32).fill(gift(t, "many")));

  const { fds, truncated } = hear(theirs);
  assert.deepEqual([fds.length, truncated], [32, false]);
  assert.equal(countMemoryFiles("many"), 33);
  fds.close();
  assert.equal(countMemoryFiles("many"), 1);
});

test("more than 32 are not sent", { timeout: 5000 }, (t) => {
  const [ours, theirs] = pair(t);
  assert.throws(() => say(ours, "x", new Array(33).fill(ours)), {
    name: "RangeError",
    message: "at most 32 descriptors in a message, got 33",
  });
  assert.equal(hear(theirs).length, -1);
});

test("of more than 32 that come all the same, the loss is told and the rest can be closed", {
  timeout: 5000,
}, (t) => {
  const [ours, theirs] = pair(t);
  sendMany(ours, gift(t, "flood"), 40);

  const { length, fds, truncated } = hear(theirs);
  assert.deepEqual([length, fds.length, truncated], [1, 32, true]);
  fds.close();
  assert.equal(countMemoryFiles("flood"), 1);
});

test("the next message after a loss is whole again", { timeout: 5000 }, (t) => {
  const [ours, theirs] = pair(t);
  const file = gift(t, "after");
  sendMany(ours, file, 33);
  hear(theirs).fds.close();

  say(ours, "fine", [file]);
  const { text, fds, truncated } = hear(theirs);
  assert.deepEqual([text, fds.length, truncated], ["fine", 1, false]);
  fds.close();
});

test("nothing yet is -1, the end is 0", { timeout: 5000 }, (t) => {
  const [ours, theirs] = pair(t);
  assert.equal(hear(theirs).length, -1);
  shutdown(ours);
  assert.equal(hear(theirs).length, 0);
  assert.ok(isOpen(ours));
});

test("what was sent before the end is still heard", { timeout: 5000 }, (t) => {
  const [ours, theirs] = pair(t);
  say(ours, "last words");
  shutdown(ours);
  assert.equal(hear(theirs).text, "last words");
  assert.equal(hear(theirs).length, 0);
});

test("to a peer that has gone nothing can be sent", { timeout: 5000 }, (t) => {
  const [ours, theirs] = socketPair();
  t.after(() => close(ours));
  close(theirs);
  assert.throws(() => say(ours, "hello?"), {
    name: "OsError",
    call: "sendmsg",
    code: "EPIPE",
    errno: 32,
    message: `sendmsg: EPIPE (32) while sending on descriptor ${ours}`,
  });
});

test("a peer that went without reading is told from one that ended well", { timeout: 5000 }, (t) => {
  const [ours, theirs] = socketPair();
  t.after(() => close(ours));
  say(ours, "unread");
  close(theirs);
  assert.throws(() => hear(ours), { name: "OsError", call: "recvmsg", code: "ECONNRESET" });
});

test("a peer that does not read fills up: some bytes, then -1, then on again", { timeout: 5000 }, (t) => {
  const [ours, theirs] = pair(t);
  let sent = 0;
  for (;;) {
    const n = send(ours, buffer.address, buffer.bytes.length);
    if (n < 0) break;
    assert.ok(n > 0 && n <= buffer.bytes.length);
    sent += n;
  }
  assert.ok(sent > 0);
  let heard = 0;
  for (let n = 1; n > 0; heard += Math.max(0, n)) n = receive(theirs, buffer.address, 65536).length;
  assert.equal(heard, sent);
  assert.equal(say(ours, "room"), 4);
});

test("sockets of messages keep them apart, and are of a kind of their own", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "messages");
  const listener = listen(path, 0o600, 1, "seqpacket");
  t.after(() => close(listener));
  assert.throws(() => connect(path), /EPROTOTYPE/);
  const ours = connect(path, "seqpacket");
  t.after(() => close(ours));
  const theirs = accept(listener);
  assert.ok(theirs !== null);
  t.after(() => close(theirs));
  for (const text of ["one", "", "three"]) say(ours, text);
  for (const text of ["one", "", "three"]) assert.equal(hear(theirs).text, text);
  // A message has to fit in what may wait to be read.
  const large = new Native(400_000);
  assert.throws(() => send(ours, large.address, 400_000), /EMSGSIZE/);
  setSendBuffer(ours, 400_000);
  assert.equal(send(ours, large.address, 300_000), 300_000);
  shutdownReceiving(theirs);
  assert.throws(() => say(ours, "four"), /EPIPE/);
});
