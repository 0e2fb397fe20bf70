import assert from "node:assert/strict";
import { existsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { close, fileStatus } from "../../ffi/fd.ts";
import { consume, eventfd, signal } from "../../ffi/eventfd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { connect, listen, shutdownSending } from "../../ffi/socket.ts";
import { SocketInUseError } from "../../mod.ts";
import { Tracer } from "../../src/tools/trace/tracer.ts";
import { oddDescriptors } from "../support/odd_descriptors.ts";
import { eventually, LIMIT } from "../session/scene.ts";
import { concat, sendMessage, u32, u64 } from "../session/wire.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { Random } from "../support/random.ts";
import { bytesOf, End, NEED_REPLY, PLAIN, REPLY, TraceScene } from "./trace_scene.ts";

// What the tracer passes on: everything, in order, as it is.

test("requests and answers cross in order, byte for byte", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  const requests = Array.from({ length: 200 }, (_, i) => bytesOf("SET_VRING_NUM", u32(i, 256)));
  front.send(concat(...requests, bytesOf("GET_FEATURES")));
  await back.expect(concat(...requests, bytesOf("GET_FEATURES")));
  back.say("GET_FEATURES", u64(0x1234_5678_9abc_def0n), REPLY);
  await front.hear("GET_FEATURES", u64(0x1234_5678_9abc_def0n), REPLY);
  const last = await scene.told(202);
  assert.deepEqual(scene.messages.slice(0, 200).map(({ content }) => content.value), [
    ...Array.from({ length: 200 }, (_, index) => ({ index, num: 256 })),
  ]);
  assert.equal(last.content.value, 0x1234_5678_9abc_def0n);
  assert.deepEqual(scene.violations, []);
});

test("what is unknown, malformed or large passes all the same", LIMIT, async (t) => {
  const random = Random.of(t);
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  const messages = [
    bytesOf(0),
    bytesOf(9999, random.bytes(77)),
    bytesOf(0xffff_ffff, random.bytes(5), NEED_REPLY),
    // Wrong flags, and sizes that no such message has.
    bytesOf("SET_FEATURES", u64(1), 0xdead_bee2),
    bytesOf("SET_VRING_ADDR", random.bytes(39)),
    bytesOf("GET_FEATURES", random.bytes(4)),
    bytesOf("SET_MEM_TABLE", u32(9, 0)),
    bytesOf("SET_OWNER", random.bytes(100_000)),
  ];
  for (const each of messages) {
    front.send(each);
    await back.expect(each);
    back.send(each);
    await front.expect(each);
  }
  await scene.told(16);
  assert.equal(scene.raw.length, 0);
  assert.equal(scene.notes.length, 0);
  assert.deepEqual(scene.messages.map(({ outcome }) => outcome), Array(16).fill("sent"));
  assert.deepEqual(scene.messages[2].name, undefined);
  assert.deepEqual(scene.messages[2].violations, []);
});

test("a payload of a mebibyte passes, larger than any buffer", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  const large = bytesOf(77, Random.of(t).bytes(1 << 20));
  let sent = 0;
  const received = back.expect(large);
  while (sent < large.length) {
    sent += Math.max(0, sendMessage(front.fd, large.subarray(sent)));
    await sleep(1);
  }
  await received;
  front.say("SET_OWNER");
  await back.hear("SET_OWNER");
  assert.equal((await scene.told(1)).payload.length, 1 << 20);
});

test("a stream that is no vhost-user passes as bytes, with its descriptors", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  front.say("SET_OWNER");
  await back.hear("SET_OWNER");
  const event = eventfd();
  onEnd(t, () => close(event));
  const garbage = concat(u32(1, 1, 0x7fff_ffff), Random.of(t).bytes(3000));
  front.send(garbage, [event]);
  const [there] = await back.expect(garbage);
  onEnd(t, () => close(there));
  signal(event);
  assert.equal(consume(there), "rung");
  front.send(new Uint8Array([1, 2, 3]));
  await back.expect(new Uint8Array([1, 2, 3]));
  // The other direction still speaks.
  back.say("SET_OWNER", u64(0), REPLY);
  await front.hear("SET_OWNER", u64(0), REPLY);
  await scene.told(2);
  assert.equal(scene.raw.reduce((sum, { bytes }) => sum + bytes.length, 0), garbage.length + 3);
  assert.match(scene.raw[0].violations[0], /no message has 2147483647 bytes of payload/);
  assert.deepEqual(scene.raw[0].descriptors, [{ kind: "eventfd" }]);
});

test("split sends arrive whole, and each descriptor with the message that it came with", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  const fds = [eventfd(), eventfd()];
  onEnd(t, () => fds.forEach(close));
  const kick = bytesOf("SET_VRING_KICK", u64(0));
  const call = bytesOf("SET_VRING_CALL", u64(0));
  for (let at = 0; at < kick.length; at++) {
    front.send(kick.subarray(at, at + 1), at === 0 ? [fds[0]] : []);
    if (at % 5 === 0) await sleep(2);
  }
  front.send(call.subarray(0, 14), [fds[1]]);
  const [first] = await back.take(t, "SET_VRING_KICK", u64(0));
  assert.equal(back.look(), "nothing");
  front.send(concat(call.subarray(14), bytesOf("SET_OWNER").subarray(0, 6)));
  const [second] = await back.take(t, "SET_VRING_CALL", u64(0));
  front.send(bytesOf("SET_OWNER").subarray(6));
  await back.hear("SET_OWNER");
  signal(fds[0]);
  assert.deepEqual([consume(first), consume(second)], ["rung", "quiet"]);
  signal(fds[1]);
  assert.equal(consume(second), "rung");
  assert.deepEqual(scene.violations, []);
});

test("descriptors that come late arrive with the same byte, and are remarked upon", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  const event = eventfd();
  onEnd(t, () => close(event));
  const kick = bytesOf("SET_VRING_KICK", u64(0));
  front.send(kick.subarray(0, 12));
  await sleep(10);
  front.send(kick.subarray(12), [event]);
  assert.deepEqual(await back.expect(kick.subarray(0, 12)), []);
  const [there] = await back.expect(kick.subarray(12));
  onEnd(t, () => close(there));
  signal(event);
  assert.equal(consume(there), "rung");
  assert.deepEqual((await scene.told(1)).violations, ["descriptors came with byte 12, not with the first"]);
});

test("descriptors of every kind arrive as what they are, and are told as that", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  const odd = oddDescriptors(t);
  front.send(bytesOf(1000), Object.values(odd));
  const there = await back.take(t, 1000);
  const same = (fd: number) => {
    const { kind, inode, device, size } = fileStatus(fd);
    return { kind, inode, device, size };
  };
  assert.deepEqual(there.map(same), Object.values(odd).map(same));
  const told = (await scene.told(1)).descriptors;
  const kinds = Object.fromEntries(Object.keys(odd).map((name, i) => [name, told[i].kind]));
  assert.deepEqual(kinds, {
    "a regular file": "file",
    "a directory": "directory",
    "a path": "directory",
    "a memory file": "memfd",
    "an empty memory file": "memfd",
    "a listening socket": "socket",
    "a connected socket": "socket",
    "a socket whose peer has gone": "socket",
    "a pipe": "pipe",
    "the read end of a pipe": "pipe",
    "the write end of a pipe": "pipe",
    "a null device": "character device",
    "an event": "eventfd",
  });
  const memory = told[Object.keys(odd).indexOf("a memory file")];
  assert.deepEqual([memory.name, memory.size], ["odd", 8192]);
  assert.equal(memory.inode, fileStatus(odd["a memory file"]).inode);
});

test("32 descriptors with one message arrive in order; more are lost, which is told", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  const files = Array.from({ length: 40 }, (_, i) => memoryFile(`m${i}`, 4096));
  onEnd(t, () => files.forEach(close));
  const inode = (fd: number) => fileStatus(fd).inode;
  front.send(bytesOf(1000), files.slice(0, 32));
  assert.deepEqual((await back.take(t, 1000)).map(inode), files.slice(0, 32).map(inode));
  assert.deepEqual(scene.violations, []);
  front.send(bytesOf(1001), files);
  await back.take(t, 1001);
  assert.match((await scene.told(2)).violations[0], /descriptors were lost/);
});

test("a reader that does not read stops the writer, and loses nothing", LIMIT, async (t) => {
  const scene = new TraceScene(t, { patience: 50 });
  const { front, back } = await scene.session();
  const payload = Random.of(t).bytes(3000);
  const message = (i: number) => bytesOf(500, concat(u32(i), payload));
  let sent = 0;
  let rest = new Uint8Array(0);
  // Until nothing more fits into the tracer: what the front-end would see without it, too.
  for (let idle = 0; idle < 50 || scene.messages.at(-1)?.outcome !== "waiting";) {
    const bytes = rest.length > 0 ? rest : message(sent);
    const n = sendMessage(front.fd, bytes);
    if (n < 0) {
      idle++;
      await sleep(2);
      continue;
    }
    idle = 0;
    rest = bytes.slice(n);
    if (rest.length === 0) sent++;
  }
  assert.ok(sent > 50 && sent < 1000, `${sent} messages fit`);
  assert.equal(scene.messages.at(-1)?.outcome, "waiting");
  // Meanwhile the other direction works.
  back.say(1000, undefined, REPLY);
  await front.hear(1000, undefined, REPLY);
  await eventually(
    "a note",
    () => scene.notes.some((note) => /a message waits: the back-end does not read/.test(note)),
  );
  for (let i = 0; i < sent; i++) await back.expect(message(i));
  if (rest.length > 0) {
    front.send(rest);
    await back.expect(message(sent));
  }
  front.say("SET_OWNER");
  await back.hear("SET_OWNER");
  assert.deepEqual(scene.violations, []);
});

for (const who of ["front-end", "back-end"] as const) {
  test(`when the ${who} leaves, the other gets what was sent, then the end`, LIMIT, async (t) => {
    const scene = new TraceScene(t);
    const { front, back } = await scene.session();
    const [leaving, staying] = who === "front-end" ? [front, back] : [back, front];
    const payload = Random.of(t).bytes(2000);
    let sent = 0;
    for (; sendMessage(leaving.fd, bytesOf(500, payload)) === 2012; sent++);
    // The last one may have gone out in part, and so may arrive in part.
    leaving.close();
    await sleep(20);
    for (let i = 0; i < sent; i++) await staying.expect(bytesOf(500, payload));
    await eventually("the end", () => staying.look() === "end");
    await eventually("the end of the session", () => scene.entries.at(-1)?.type === "session");
    const end = scene.entries.at(-1);
    assert.ok(end?.type === "session" && end.event === "end" && end.left === who);
  });
}

test("half a message arrives before the end, and is told", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  const event = eventfd();
  onEnd(t, () => close(event));
  const half = bytesOf("SET_VRING_KICK", u64(0)).subarray(0, 15);
  front.send(half, [event]);
  await sleep(10);
  front.close();
  const [there] = await back.expect(half);
  close(there);
  await back.ended();
  await eventually("the end of the session", () => scene.entries.at(-1)?.type === "session");
  assert.deepEqual(scene.violations, ["the front-end has left after 15 of 20 bytes of SET_VRING_KICK"]);
});

test("who says that he sends no more still gets the answers", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  front.say("GET_FEATURES");
  shutdownSending(front.fd);
  await back.hear("GET_FEATURES");
  await eventually("the end", () => back.look() === "end");
  back.say("GET_FEATURES", u64(1), REPLY);
  await front.hear("GET_FEATURES", u64(1), REPLY);
  back.close();
  await front.ended();
  assert.deepEqual(scene.notes, ["info: the front-end sends no more"]);
});

test("who has said that he sends no more, and then leaves, is seen to leave", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  shutdownSending(front.fd);
  await eventually("the end", () => back.look() === "end");
  assert.ok(!scene.entries.some((entry) => entry.type === "session" && entry.event === "end"));
  front.close();
  await eventually("the end of the session", () => scene.entries.at(-1)?.type === "session");
  assert.equal(sendMessage(back.fd, bytesOf("SET_OWNER")), -1);
});

test("an answer that nobody takes any more is told as not delivered", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  front.say("GET_FEATURES");
  await back.hear("GET_FEATURES");
  // Both within one turn of the tracer.
  back.say("GET_FEATURES", u64(1), REPLY);
  front.close();
  const answer = await scene.told(2);
  assert.equal(answer.outcome, "undelivered");
  await eventually("the end", () => back.look() === "end");
});

test("who only looks whether somebody listens is no front-end", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  close(connect(scene.path));
  const { front, back } = await scene.session();
  front.say("SET_OWNER");
  await back.hear("SET_OWNER");
  assert.equal((await scene.told(1)).session, 1);
});

test("several front-ends, at once and one after the other, are sessions of their own", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const pairs = [await scene.session(), await scene.session(), await scene.session()];
  for (const [i, { front }] of pairs.entries()) front.say("SET_FEATURES", u64(i));
  for (const [i, { back }] of pairs.entries()) await back.hear("SET_FEATURES", u64(i));
  pairs[1].front.close();
  await pairs[1].back.ended();
  const fourth = await scene.session();
  fourth.front.say("SET_FEATURES", u64(3));
  await fourth.back.hear("SET_FEATURES", u64(3));
  pairs[0].front.say("SET_OWNER");
  await pairs[0].back.hear("SET_OWNER");
  await scene.told(5);
  assert.deepEqual(
    scene.messages.map(({ session, name }) => [session, name]),
    [[1, "SET_FEATURES"], [2, "SET_FEATURES"], [3, "SET_FEATURES"], [4, "SET_FEATURES"], [1, "SET_OWNER"]],
  );
});

test("a front-end whose back-end is not there is sent away, and the reason told", LIMIT, async (t) => {
  const scene = new TraceScene(t, { connect: join(tempDir(t), "nobody") });
  const front = new End(t, connect(scene.path));
  await front.ended();
  assert.match(scene.notes[0], /^error: no session: .*ENOENT/);
});

test("a back-end may be the one that connects", LIMIT, async (t) => {
  const scene = new TraceScene(t, { accepts: "back-end" });
  // The scene's names are the wrong way round then.
  const { front: back, back: front } = await scene.session();
  front.say("GET_FEATURES");
  await back.hear("GET_FEATURES");
  back.say("GET_FEATURES", u64(0), REPLY);
  await front.hear("GET_FEATURES", u64(0), REPLY);
  await scene.told(2);
  assert.deepEqual(scene.messages.map(({ from, reply }) => [from, reply]), [
    ["front-end", false],
    ["back-end", true],
  ]);
  assert.deepEqual(scene.violations, []);
});

test("the end of the tracer closes both sides and removes the socket file", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  assert.equal(statSync(scene.path).mode & 0o777, 0o600);
  scene.tracer.close();
  await scene.tracer.finished;
  await front.ended();
  await back.ended();
  assert.ok(!existsSync(scene.path));
  const end = scene.entries.at(-1);
  assert.ok(end?.type === "session" && end.event === "end" && end.left === undefined);
});

test("a socket that somebody listens on is left alone, a stale one is replaced", LIMIT, async (t) => {
  const folder = tempDir(t);
  const path = join(folder, "socket");
  const options = { listen: path, connect: join(folder, "back"), onEntry: () => {} };
  const other = listen(path);
  assert.throws(() => new Tracer(options), SocketInUseError);
  close(other);
  const tracer = new Tracer(options);
  tracer.close();
  await tracer.finished;
  writeFileSync(path, "precious");
  assert.throws(() => new Tracer(options), /is not a socket/);
});

test("a message that stays incomplete, or unanswered, is remarked upon once", LIMIT, async (t) => {
  const scene = new TraceScene(t, { patience: 30 });
  const { front, back } = await scene.session();
  front.say("GET_FEATURES");
  front.send(bytesOf("SET_FEATURES", u64(1)).subarray(0, 14));
  await back.hear("GET_FEATURES");
  await eventually("two remarks", () => scene.notes.length >= 2);
  await sleep(150);
  assert.deepEqual(scene.notes.toSorted(), [
    "warning: GET_FEATURES: no answer for 30 ms",
    "warning: from the front-end: only 14 of 20 bytes of SET_FEATURES have come, for 30 ms or more",
  ]);
  front.close();
  await eventually("the end of the session", () => scene.entries.at(-1)?.type === "session");
  assert.equal(scene.notes.at(-1), "warning: never answered: GET_FEATURES");
});

test("flags of the socket's messages cross as they are", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.session();
  front.say("SET_OWNER", undefined, PLAIN);
  front.say("SET_OWNER", undefined, NEED_REPLY);
  await back.hear("SET_OWNER", undefined, PLAIN);
  await back.hear("SET_OWNER", undefined, NEED_REPLY);
});
