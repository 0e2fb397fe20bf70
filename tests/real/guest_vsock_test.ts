import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { sameBytes } from "../session/scene.ts";
import { type Scope, tempDir } from "../support/cleanup.ts";
import type { Guest, PlugOptions } from "../support/guest.ts";
import { MIB } from "../support/image.ts";
import { startExample } from "../support/our_backend.ts";
import { type PeerName, realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";
import {
  dialGuest,
  listenForGuest,
  MessageSocket,
  pattern,
  PatternCheck,
  readToEnd,
  startVsockDevice,
  type VsockBackend,
  writePattern,
} from "../support/vsock.ts";

// Linux's driver in QEMU. The guest's end is scripts/guest/vsock.c.

const needs: readonly PeerName[] = ["qemu", "guest"];
const BIG = 100 * MIB;

async function plugged(
  t: Scope,
  device: VsockBackend,
  cid = 3,
  options: PlugOptions = {},
): Promise<Guest> {
  const guest = await restoreGuest(t);
  await guest.plug("vhost-user-vsock-pci", device.sockets.get(cid) ?? "", options);
  await guest.waitFor("[ -d /sys/bus/virtio/drivers/vmw_vsock_virtio_transport/virtio* ]");
  return guest;
}

function pathOf(device: VsockBackend, cid = 3): string {
  return device.paths.get(cid) ?? "";
}

async function finish(device: VsockBackend, ...guests: Guest[]): Promise<void> {
  for (const guest of guests) await guest.stop();
  await device.backend.checkUnharmed();
}

realTest("100 MiB both ways at once, checked by both sides", needs, { timeout: 180_000 }, async (t) => {
  const device = await startVsockDevice(t);
  const guest = await plugged(t, device);
  const check = new PatternCheck();
  let ended: Promise<void> | undefined;
  const server = await listenForGuest(t, pathOf(device), 1000, (socket) => {
    ended = readToEnd(socket, (chunk) => check.add(chunk));
    socket.end();
  });
  await guest.run(`vsock listen 2000 recv:${BIG} end text:well shut >/tmp/got 2>&1`);
  const sending = guest.run(`vsock connect 2 1000 send:${BIG} shut end`, 120_000);
  // Not before it runs: a guest that receives loses what is typed at its terminal.
  await once(server, "connection");
  const socket = await dialGuest(t, pathOf(device), 2000);
  await writePattern(socket, BIG);
  socket.end();
  let text = "";
  await readToEnd(socket, (chunk) => text += String(chunk));
  await sending;
  assert.equal(text, "well", await guest.run("cat /tmp/got"));
  await ended;
  assert.deepEqual([check.length, check.wrongAt], [BIG, -1]);
  await finish(device, guest);
});

realTest("1000 short connections each way", needs, { timeout: 120_000 }, async (t) => {
  const device = await startVsockDevice(t);
  const guest = await plugged(t, device);
  const path = pathOf(device);
  let count = 0;
  await listenForGuest(t, path, 1000, (socket) => {
    count++;
    socket.end(`number ${count}\n`);
    socket.resume();
  });
  const said = await guest.run("vsock -n 1000 connect 2 1000 gettext", 60_000);
  const lines = said.split("\n").filter((line) => line !== "");
  assert.deepEqual(lines, Array.from({ length: 1000 }, (_, i) => `number ${i + 1}`));
  await guest.run("vsock -n 1000 listen 2000 text:hello >/tmp/got 2>&1");
  // Several at a time, so that they wait for each other in the guest.
  let done = 0;
  await Promise.all(Array.from({ length: 10 }, async () => {
    for (let i = 0; i < 100; i++) {
      const socket = await dialGuest(t, path, 2000);
      let text = "";
      await readToEnd(socket, (chunk) => text += String(chunk));
      assert.equal(text, "hello");
      socket.destroy();
      done++;
    }
  }));
  assert.equal(done, 1000);
  assert.equal(await guest.run("cat /tmp/got"), "");
  await finish(device, guest);
});

realTest("halves, refusals, and a port that nobody has", needs, {}, async (t) => {
  const device = await startVsockDevice(t);
  const guest = await plugged(t, device);
  const path = pathOf(device);
  assert.equal(await guest.run("vsock connect 2 4444; true"), "connect: Connection reset by peer");
  assert.equal(await guest.run("vsock connect 4 4444; true"), "connect: Connection reset by peer");
  await assert.rejects(dialGuest(t, path, 4444), /closed before/);
  // The guest ends its half and still reads; then the host does the same.
  await listenForGuest(t, path, 1000, (socket) => {
    let text = "";
    socket.on("data", (chunk) => text += String(chunk));
    socket.on("end", () => socket.end(`answer to ${text}`));
  });
  assert.equal(await guest.run("vsock connect 2 1000 text:question shut gettext"), "answer to question");
  await guest.run("vsock listen 2000 gettext text:reply >/tmp/got 2>&1");
  const socket = await dialGuest(t, path, 2000);
  socket.end("asked");
  let text = "";
  await readToEnd(socket, (chunk) => text += String(chunk));
  assert.equal(text, "reply");
  assert.equal(await guest.run("cat /tmp/got"), "asked");
  // The host leaves in the middle.
  await guest.run("vsock listen 2001 end >/tmp/got 2>&1");
  const leaving = await dialGuest(t, path, 2001);
  leaving.destroy();
  await guest.waitFor("! pidof vsock");
  assert.equal(await guest.run("cat /tmp/got"), "");
  await finish(device, guest);
});

realTest("messages keep their bounds, to and from sockets of messages", needs, {}, async (t) => {
  const device = await startVsockDevice(t);
  const guest = await plugged(t, device);
  const path = pathOf(device);
  const accept = MessageSocket.listen(t, `${path}_1000`);
  // Up to what the driver can send at once: the buffer here.
  await guest.run("vsock -s listen 2000 getmsg getmsg getmsg getmsg msg:1 msg:3000 end >/tmp/got 2>&1");
  const lengths = [1, 4096, 3, 200_000, 17];
  const sending = guest.run(`vsock -s connect 2 1000 ${lengths.map((n) => `msg:${n}`).join(" ")} shut end`);
  const incoming = await accept();
  for (const length of lengths) {
    // A message that is longer than what is read of it loses the rest, and not more.
    sameBytes(
      await incoming.receive(),
      pattern(Math.ceil(length / 4) * 4).subarray(0, Math.min(4096, length)),
    );
  }
  assert.equal((await incoming.receive()).length, 0, "the end");
  incoming.close();
  await sending;
  const outgoing = MessageSocket.connect(t, `${path}_seqpacket`);
  await outgoing.send("CONNECT 2000\n");
  assert.match(new TextDecoder().decode(await outgoing.receive()), /^OK \d+\n$/);
  for (const length of [8, 10_000, 1, 200_000]) {
    await outgoing.send(pattern(Math.ceil(length / 4) * 4).subarray(0, length));
  }
  assert.equal((await outgoing.receive()).length, 1);
  sameBytes(await outgoing.receive(), pattern(3000));
  assert.equal(await guest.run("cat /tmp/got"), "8\n10000\n1\n200000");
  outgoing.close();
  // Where bytes in a row are listened for, messages cannot go, and the other way round.
  await listenForGuest(t, path, 1001, (socket) => socket.end());
  assert.equal(await guest.run("vsock -s connect 2 1001; true"), "connect: Connection reset by peer");
  await guest.waitFor("! pidof vsock");
  await guest.stop();
  assert.match(device.backend.complaints.join(), /EPROTOTYPE/);
});

realTest("a peer that does not read stops the other, in bounds", needs, { timeout: 60_000 }, async (t) => {
  const device = await startVsockDevice(t);
  const guest = await plugged(t, device);
  const path = pathOf(device);
  await listenForGuest(t, path, 1000, (socket) => socket.pause());
  const before = memory(device);
  // 40 connections that the host does not read. The driver's own buffer counts as well.
  const filled = await guest.run(
    "for i in $(seq 40); do vsock connect 2 1000 fill sleep:600000 >/tmp/f$i & done; " +
      "n=0; while [ $(cat /tmp/f* | wc -l) -lt 40 ] && [ $n -lt 300 ]; do usleep 50000; n=$((n+1)); done; cat /tmp/f*",
    40_000,
  );
  const sums = filled.split("\n").map(Number);
  assert.equal(sums.length, 40);
  for (const sum of sums) assert.ok(sum >= 200_000 && sum < 4 * MIB, `${sum} bytes were taken`);
  const growth = memory(device) - before;
  assert.ok(growth < 100, `${growth} MiB more`);
  // Others are not held up, in either direction.
  await listenForGuest(t, path, 1001, (socket) => socket.pipe(socket));
  assert.equal(await guest.run("vsock connect 2 1001 text:still shut gettext"), "still");
  // And the other way: the guest does not read.
  await guest.run("vsock listen 2000 sleep:600000 >/tmp/got 2>&1");
  const socket = await dialGuest(t, path, 2000);
  let written = 0;
  while (socket.write(pattern(65536), () => written += 65536) || socket.writableLength < 8 * MIB);
  for (let last = -1; last !== written; await sleep(200)) last = written;
  assert.ok(written < 4 * MIB, `${written} bytes were taken`);
  assert.equal(await guest.run("vsock connect 2 1001 text:again shut gettext"), "again");
  await finish(device, guest);
});

/** MiB that the back-end has in memory of its own. */
function memory(device: VsockBackend): number {
  const status = readFileSync(`/proc/${device.backend.child.pid}/status`, "utf8");
  return Number(/RssAnon:\s+(\d+)/.exec(status)?.[1]) / 1024;
}

realTest("two guests reach each other where they have a group in common", needs, {
  timeout: 90_000,
}, async (t) => {
  const device = await startVsockDevice(t, { 3: "a", 4: "a+b", 5: "b" });
  const [three, four, five] = await Promise.all([3, 4, 5].map((cid) => plugged(t, device, cid)));
  await four.run(`vsock -n 2 listen 2000 recv:${8 * MIB} end send:${4 * MIB} shut >/tmp/got 2>&1`);
  for (const guest of [three, five]) {
    await guest.run(`vsock connect 4 2000 send:${8 * MIB} shut recv:${4 * MIB} end`, 40_000);
  }
  assert.equal(await four.run("cat /tmp/got"), "");
  await five.run("vsock listen 2000 gettext >/tmp/got 2>&1");
  assert.equal(await three.run("vsock connect 5 2000; true"), "connect: Connection reset by peer");
  assert.equal(await four.run("vsock connect 5 2000 text:hello"), "");
  await five.waitFor("grep -q hello /tmp/got");
  // Messages, too.
  await four.run("vsock -s listen 2001 getmsg getmsg >/tmp/got 2>&1");
  await three.run("vsock -s connect 4 2001 msg:100000 msg:3 sleep:100");
  await four.waitFor("[ $(wc -l </tmp/got) = 2 ]");
  assert.equal(await four.run("cat /tmp/got"), "100000\n3");
  await finish(device, three, four, five);
});

realTest("a guest that boots again has no connections, and gets new ones", needs, {
  timeout: 90_000,
}, async (t) => {
  const device = await startVsockDevice(t);
  const guest = await plugged(t, device);
  await guest.run("vsock listen 2000 echo >/tmp/got 2>&1");
  const socket = await dialGuest(t, pathOf(device), 2000);
  socket.write("hello");
  assert.equal(String((await once(socket, "data"))[0]), "hello");
  // A pause is no end.
  await guest.qmp("stop");
  socket.write("again");
  await guest.qmp("cont");
  assert.equal(String((await once(socket, "data"))[0]), "again");
  socket.resume();
  const closed = once(socket, "end");
  await guest.reboot("button");
  await closed;
  await guest.run("vsock listen 2000 gettext >/tmp/got 2>&1");
  const next = await dialGuest(t, pathOf(device), 2000);
  next.end("new");
  await readToEnd(next, () => {});
  assert.equal(await guest.run("cat /tmp/got"), "new");
  await finish(device, guest);
});

realTest("the example: a service in the program, and a connection to the guest", needs, {}, async (t) => {
  const socket = join(tempDir(t), "s");
  const example = startExample(t, "vsock", socket);
  await example.waitSocket(socket, 20_000);
  const guest = await restoreGuest(t);
  await guest.plug("vhost-user-vsock-pci", socket);
  await guest.waitFor("[ -d /sys/bus/virtio/drivers/vmw_vsock_virtio_transport/virtio* ]");
  assert.equal(await guest.run("vsock connect 2 1234 text:hello shut gettext"), "HELLO");
  await guest.run("vsock listen 5000 text:name >/tmp/got 2>&1");
  assert.equal(await guest.run("vsock connect 2 1235 gettext"), "name");
  // Nobody listens there now, so the program's promise fails, and the connection is reset: to Linux, the end.
  assert.equal(await guest.run("vsock connect 2 1235 gettext"), "");
  assert.equal(await guest.run("vsock connect 2 1234 text:still shut gettext"), "STILL");
  await guest.stop();
  assert.equal(example.code, undefined, example.output);
});
