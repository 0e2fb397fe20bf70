import assert from "node:assert/strict";
import { existsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import test, { type TestContext } from "node:test";
import { close, fileStatus } from "../../ffi/fd.ts";
import { openFile, OpenFlag, removeFile } from "../../ffi/file.ts";
import { accept, connect, isListening, listen, peerCredentials, socketPair } from "../../ffi/socket.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";

function owned(t: TestContext, fd: number): number {
  onEnd(t, () => close(fd));
  return fd;
}

test("who listens is found by who connects", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "s");
  const listening = owned(t, listen(path));
  assert.equal(accept(listening), null, "nobody yet");

  const front = owned(t, connect(path));
  const back = owned(t, accept(listening) ?? -1);

  assert.equal(isListening(listening), true);
  assert.equal(isListening(front), false);
  assert.equal(isListening(back), false);
  assert.equal(accept(listening), null, "only one came");
});

test("the socket file has its mode whatever the umask, and the umask stays", { timeout: 5000 }, (t) => {
  const dir = tempDir(t);
  const before = process.umask();
  onEnd(t, () => void process.umask(before));
  for (const umask of [0o000, 0o022, 0o177]) {
    process.umask(umask);
    for (const mode of [0o600, 0o660, 0o666]) {
      const path = join(dir, `${umask.toString(8)}-${mode.toString(8)}`);
      owned(t, listen(path, mode));
      assert.equal(statSync(path).mode & 0o777, mode, `umask ${umask.toString(8)}`);
      assert.equal(process.umask(), umask);
    }
  }
});

test("only the owner may connect by default", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "s");
  owned(t, listen(path));
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

test("where nothing is, connecting says ENOENT and the path", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "nobody");
  assert.throws(() => connect(path), {
    name: "OsError",
    call: "connect",
    code: "ENOENT",
    message: `connect: ENOENT (2) while connecting to ${path}`,
  });
});

test("where nobody listens any more, ECONNREFUSED", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "left");
  close(listen(path));
  assert.ok(existsSync(path), "the file stays");
  assert.throws(() => connect(path), { name: "OsError", call: "connect", code: "ECONNREFUSED" });
});

test("a listener that does not accept is full some time: EAGAIN", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "busy");
  owned(t, listen(path, 0o600, 0));
  owned(t, connect(path));
  assert.throws(() => owned(t, connect(path)), { name: "OsError", call: "connect", code: "EAGAIN" });
});

test("a path that exists is not taken over", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "taken");
  writeFileSync(path, "mine");
  const before = process.umask();
  assert.throws(() => listen(path), {
    name: "OsError",
    call: "bind",
    code: "EADDRINUSE",
    message: `bind: EADDRINUSE (98) while creating the socket ${path}`,
  });
  assert.equal(process.umask(), before);
  assert.ok(statSync(path).isFile());
});

test("a path of 107 bytes is the longest", { timeout: 5000 }, (t) => {
  const dir = tempDir(t);
  const longest = join(dir, "x".repeat(107 - dir.length - 1));
  owned(t, listen(longest));
  owned(t, connect(longest));
  for (const path of [`${longest}x`, "", "a\0b"]) {
    assert.throws(() => listen(path), {
      name: "RangeError",
      message: /must have 1 to 107 bytes and no zero byte/,
    });
    assert.throws(() => connect(path), { name: "RangeError" });
  }
});

test("bytes are counted, not letters", { timeout: 5000 }, () => {
  assert.throws(() => connect("/" + "ü".repeat(54)), { name: "RangeError", message: /got 109/ });
});

test("a short path after a long one is not mixed with it", { timeout: 5000 }, (t) => {
  const dir = tempDir(t);
  owned(t, listen(join(dir, "a-long-name")));
  owned(t, listen(join(dir, "a")));
  owned(t, connect(join(dir, "a")));
  assert.ok(existsSync(join(dir, "a")));
});

test("the peer is who connected", { timeout: 5000 }, (t) => {
  const path = join(tempDir(t), "s");
  const listening = owned(t, listen(path));
  owned(t, connect(path));
  assert.deepEqual(peerCredentials(owned(t, accept(listening) ?? -1)), {
    pid: process.pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
  });
});

test("a file is no socket: ENOTSOCK", { timeout: 5000 }, (t) => {
  const fd = owned(t, openFile("/dev/null", OpenFlag.READ_WRITE));
  for (const ask of [isListening, peerCredentials]) {
    assert.throws(() => ask(fd), {
      name: "OsError",
      call: "getsockopt",
      code: "ENOTSOCK",
      message: new RegExp(`while asking the (state|peer) of descriptor ${fd}$`),
    });
  }
  assert.throws(() => accept(fd), { name: "OsError", call: "accept4", code: "ENOTSOCK" });
});

test("a pair is connected and does not listen", { timeout: 5000 }, (t) => {
  const [ours, theirs] = socketPair().map((fd) => owned(t, fd));
  assert.equal(isListening(ours), false);
  assert.equal(peerCredentials(theirs).pid, process.pid);
  assert.equal(fileStatus(ours).kind, "socket");
});

test("removing a name that is not there is no error, removing a directory is", { timeout: 5000 }, (t) => {
  const dir = tempDir(t);
  const path = join(dir, "s");
  close(listen(path));
  removeFile(path);
  assert.equal(existsSync(path), false);
  removeFile(path);
  assert.throws(() => removeFile(dir), {
    name: "OsError",
    call: "unlink",
    message: new RegExp(`while removing ${dir}$`),
  });
});
