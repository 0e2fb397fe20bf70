import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { close, readBytes } from "../../ffi/fd.ts";
import { eventfd } from "../../ffi/eventfd.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { socketPair } from "../../ffi/socket.ts";
import { protocolFeatures } from "../../src/protocol/features.ts";
import { frontendMessages } from "../../src/protocol/messages.ts";
import { readContent } from "../../src/tools/describe.ts";
import { descriptorText, sizeText } from "../../src/tools/trace/descriptors.ts";
import { deviceTypes } from "../../src/tools/device_types.ts";
import type { MessageEntry } from "../../src/tools/trace/entry.ts";
import { entryJson, summaryJson } from "../../src/tools/trace/json.ts";
import { LineWriter } from "../../src/tools/trace/line_writer.ts";
import { Summary, summaryLines } from "../../src/tools/trace/summary.ts";
import { entryLines } from "../../src/tools/trace/text.ts";
import { noteDescriptors } from "../session/descriptors.ts";
import { eventually, LIMIT } from "../session/scene.ts";
import { concat, u32, u64 } from "../session/wire.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { NEED_REPLY, PLAIN, REPLY, TraceScene } from "./trace_scene.ts";

// How a trace is written: lines for people, JSON, and the summary.

const plain = { deviceFeatures: deviceTypes.blk };
/** What marks every text that is painted. */
const marked = { ...plain, paint: (style: string, text: string) => `<${style} ${text}>` };

/** An answer to GET_FEATURES, or whatever is said otherwise. */
function message(change: Partial<MessageEntry> = {}): MessageEntry {
  const payload = change.payload ?? u64((1n << 30n) | (1n << 9n));
  return {
    type: "message",
    session: 1,
    time: 12.3456,
    channel: "main",
    from: "back-end",
    header: { request: frontendMessages.GET_FEATURES.id, flags: REPLY, size: payload.length },
    name: "GET_FEATURES",
    reply: true,
    content: readContent("u64", payload),
    payload,
    descriptors: [],
    latency: 0.25,
    failed: false,
    violations: [],
    outcome: "sent",
    ...change,
  };
}

test("a line tells who says what, and how long the answer took", () => {
  assert.deepEqual(entryLines(message(), plain), [
    "#1     12.346 ms ← GET_FEATURES reply 0x40000200 FLUSH PROTOCOL_FEATURES, after 250 µs",
  ]);
  const unnamed = entryLines(message(), {})[0];
  assert.match(unnamed, /0x40000200 bit 9 PROTOCOL_FEATURES/);
  const address = concat(u32(1, 0), u64(0x1000, 0x2000, 0x3000, 0));
  assert.deepEqual(
    entryLines(
      message({
        from: "front-end",
        name: "SET_VRING_ADDR",
        header: { request: 9, flags: NEED_REPLY, size: 40 },
        reply: false,
        content: readContent("vringAddress", address),
        payload: address,
        latency: undefined,
        outcome: "waiting",
        violations: ["something is wrong"],
      }),
      plain,
    ),
    [
      "#1     12.346 ms → SET_VRING_ADDR index=1 flags=0 descriptor=0x1000 used=0x2000 available=0x3000 log=0x0 " +
      "(need_reply) (waits: the other side does not read)",
      "#1     12.346 ms ! something is wrong",
    ],
  );
});

test("acknowledgements, masks and masses of bytes in words", () => {
  const line = (name: string, kind: Parameters<typeof readContent>[0], payload: Uint8Array, failed = false) =>
    entryLines(
      message({ name, content: readContent(kind, payload), payload, failed, latency: undefined }),
      plain,
    )[0]
      .slice("#1     12.346 ms ← ".length);
  assert.equal(line("SET_OWNER", "ack", u64(0)), "SET_OWNER reply ok");
  assert.equal(line("SET_OWNER", "ack", u64(1), true), "SET_OWNER reply failed (0x1)");
  assert.equal(line("GET_CONFIG", undefined, u64(), true), "GET_CONFIG reply failed");
  assert.equal(
    line("GET_STATUS", "u64", u64(0xf)),
    "GET_STATUS reply 0xf ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK",
  );
  assert.equal(line("GET_QUEUE_NUM", "u64", u64(16)), "GET_QUEUE_NUM reply 0x10 (16)");
  assert.equal(
    line("GET_CONFIG", "config", concat(u32(0, 40, 0), new Uint8Array(40))),
    "GET_CONFIG reply offset=0 flags=0 data=40 zero bytes",
  );
  assert.equal(
    line("GET_CONFIG", "config", concat(u32(0, 40, 0), new Uint8Array(40).fill(0xa5))),
    `GET_CONFIG reply offset=0 flags=0 data=40 bytes ${"a5".repeat(32)}…`,
  );
  assert.equal(
    line("SET_OWNER", "ack", u32(7)),
    "SET_OWNER reply payload that cannot be decoded: 4 bytes 07000000",
  );
});

test("colour only where it is wanted: red for what is wrong", () => {
  const wrong = message({ failed: true, violations: ["bad"] });
  const [first, second] = entryLines(wrong, marked);
  assert.match(first, /<red GET_FEATURES reply.*>$/);
  assert.match(second, /! <red bad>$/);
  assert.ok(!entryLines(wrong, plain).join("").includes("<red"));
  assert.ok(!entryLines(message(), marked)[0].includes("<red"));
});

test("what a peer calls its files cannot command the terminal", () => {
  assert.equal(
    descriptorText({ kind: "memfd", name: "a\x1b[31m\n\u202eb\x9bé", size: 4096 }),
    'memfd "a\\u{1b}[31m\\u{a}\\u{202e}b\\u{9b}é" 4 KiB',
  );
  assert.deepEqual([0, 4096, 5000, 1 << 28, 3 * 2 ** 30].map(sizeText), [
    "0 bytes",
    "4 KiB",
    "5000 bytes",
    "256 MiB",
    "3 GiB",
  ]);
});

test("JSON: one object per entry, with the names that are documented", LIMIT, async (t) => {
  const scene = new TraceScene(t, { patience: 250 });
  const protocol = 1n << BigInt(protocolFeatures.REPLY_ACK);
  const { front, back } = await scene.negotiated(protocol, 1n << 30n | 1n << 9n);
  const memory = memoryFile("ram", 8192);
  const event = eventfd();
  onEnd(t, () => [memory, event].forEach(close));
  const regions = concat(u32(1, 0), u64(0x1000, 8192, 0x7000_0000_0000, 0));
  front.say("SET_MEM_TABLE", regions, NEED_REPLY, [memory]);
  await back.take(t, "SET_MEM_TABLE", regions, NEED_REPLY);
  back.say("SET_MEM_TABLE", u64(1), REPLY);
  await front.hear("SET_MEM_TABLE", u64(1), REPLY);
  front.say("SET_VRING_KICK", u64(0), PLAIN, [event]);
  await back.take(t, "SET_VRING_KICK", u64(0));
  front.say(4711, new Uint8Array([1, 2, 255]));
  await back.hear(4711, new Uint8Array([1, 2, 255]));
  front.say("GET_QUEUE_NUM", u32(5));
  await back.hear("GET_QUEUE_NUM", u32(5));
  await eventually("a note", () => scene.notes.length > 0);
  front.send(new Uint8Array(12).fill(0xff));
  await back.expect(new Uint8Array(12).fill(0xff));
  front.close();
  await eventually("the end of the session", () => scene.entries.at(-1)?.type === "session");

  // As a reader sees it.
  const objects = scene.entries.map((entry) => JSON.parse(JSON.stringify(entryJson(entry, deviceTypes.blk))));
  for (const each of objects) {
    assert.equal(each.session, 1);
    assert.ok(each.timeUs >= 0);
    delete each.session;
    delete each.timeUs;
    if ("latencyUs" in each) assert.ok(each.latencyUs > 0);
    delete each.latencyUs;
  }
  const [start, ...rest] = objects;
  assert.deepEqual([start.type, start.event], ["session", "start"]);
  assert.ok(Date.parse(start.date) > 0);
  assert.ok(start.frontEnd.pid > 0 && start.backEnd.uid >= 0);
  const usual = { type: "message", channel: "main", violations: [], outcome: "sent", descriptors: [] };
  assert.deepEqual(rest[1], {
    ...usual,
    from: "back-end",
    id: 1,
    name: "GET_FEATURES",
    reply: true,
    needReply: false,
    flags: 5,
    size: 8,
    kind: "u64",
    payload: "0x40000200",
    bits: ["FLUSH", "PROTOCOL_FEATURES"],
    failed: false,
  });
  const table = rest.findIndex(({ name }) => name === "SET_MEM_TABLE");
  const [{ inode }] = rest[table].descriptors;
  assert.match(inode, /^\d+$/);
  assert.deepEqual(rest.slice(table), [
    {
      ...usual,
      from: "front-end",
      id: 5,
      name: "SET_MEM_TABLE",
      reply: false,
      needReply: true,
      flags: 9,
      size: 40,
      kind: "memoryRegions",
      payload: [{ guestAddress: "0x1000", size: "0x2000", userAddress: "0x700000000000", mmapOffset: "0x0" }],
      descriptors: [{ kind: "memfd", name: "ram", size: 8192, inode }],
    },
    {
      ...usual,
      from: "back-end",
      id: 5,
      name: "SET_MEM_TABLE",
      reply: true,
      needReply: false,
      flags: 5,
      size: 8,
      kind: "ack",
      payload: "0x1",
      failed: true,
    },
    {
      ...usual,
      from: "front-end",
      id: 12,
      name: "SET_VRING_KICK",
      reply: false,
      needReply: false,
      flags: 1,
      size: 8,
      kind: "vringDescriptor",
      payload: { index: 0, noDescriptor: false },
      descriptors: [{ kind: "eventfd" }],
    },
    {
      ...usual,
      from: "front-end",
      id: 4711,
      name: null,
      reply: false,
      needReply: false,
      flags: 1,
      size: 3,
      kind: null,
      bytes: "0102ff",
    },
    {
      ...usual,
      from: "front-end",
      id: 17,
      name: "GET_QUEUE_NUM",
      reply: false,
      needReply: false,
      flags: 1,
      size: 4,
      kind: "none",
      bytes: "05000000",
      violations: ["payload: expected 0 bytes, got 4", "protocol feature MQ was not negotiated"],
    },
    { type: "note", channel: "main", level: "warning", text: "GET_QUEUE_NUM: no answer for 250 ms" },
    {
      type: "raw",
      channel: "main",
      from: "front-end",
      size: 12,
      bytes: "ff".repeat(12),
      descriptors: [],
      violations: ["no message has 4294967295 bytes of payload: passed on as bytes from here"],
      outcome: "sent",
    },
    { type: "note", channel: "main", level: "warning", text: "never answered: GET_QUEUE_NUM" },
    { type: "session", event: "end", left: "front-end" },
  ]);
});

test("the summary counts by name and knows the middle", () => {
  const summary = new Summary();
  for (let i = 0; i < 5; i++) {
    summary.add(message({ reply: false, latency: undefined }));
    summary.add(message({ latency: [3, 1, 0.5, 200, 2][i], failed: i === 0 }));
  }
  summary.add(message({ name: undefined, reply: false, latency: undefined, channel: "back-end" }));
  assert.deepEqual(summary.rows, [
    {
      channel: "main",
      name: "GET_FEATURES",
      count: 5,
      answered: 5,
      failed: 1,
      latency: { min: 0.5, median: 2, max: 200 },
    },
    { channel: "back-end", name: "message 1", count: 1, answered: 0, failed: 0 },
  ]);
  assert.deepEqual(summaryLines(summary.rows), [
    "message              sent  answered  failed     min  median     max",
    "GET_FEATURES            5         5       1  500 µs  2.0 ms  200 ms",
    "[channel] message 1     1         0       0",
  ]);
  assert.deepEqual(summaryJson(summary.rows), {
    type: "summary",
    messages: [
      {
        channel: "main",
        name: "GET_FEATURES",
        count: 5,
        answered: 5,
        failed: 1,
        minUs: 500,
        medianUs: 2000,
        maxUs: 200000,
      },
      { channel: "back-end", name: "message 1", count: 1, answered: 0, failed: 0 },
    ],
  });
});

/** All that can be read from a descriptor now. */
function readAll(fd: number): string {
  const decoder = new TextDecoder();
  let text = "";
  for (let bytes = readBytes(fd); bytes !== null && bytes.length > 0; bytes = readBytes(fd)) {
    text += decoder.decode(bytes, { stream: true });
  }
  return text;
}

const quiet = { lost: (lines: number) => `${lines} lost`, onGone: () => assert.fail("somebody reads") };

test("lines wait for a reader that is slow, and nobody waits for it", LIMIT, async (t) => {
  onEnd(t, noteDescriptors());
  const [here, there] = socketPair();
  onEnd(t, () => [here, there].forEach(close));
  const writer = new LineWriter(here, Reactor.shared(), quiet);
  const lines = Array.from({ length: 20_000 }, (_, i) => `line ${i} ${"µ".repeat(i % 50)}`);
  const start = performance.now();
  for (const line of lines) writer.write(line);
  assert.ok(performance.now() - start < 20_000);
  const all = `${lines.join("\n")}\n`;
  let text = "";
  await eventually("all lines", () => (text += readAll(there)).length >= all.length);
  assert.deepEqual(text, all);
  await writer.end(0);
});

test("lines for which there is no room are counted", LIMIT, async (t) => {
  onEnd(t, noteDescriptors());
  const [here, there] = socketPair();
  onEnd(t, () => [here, there].forEach(close));
  const writer = new LineWriter(here, Reactor.shared(), { ...quiet, room: 100_000 });
  for (let i = 0; i < 10_000; i++) writer.write("x".repeat(99));
  let text = "";
  await eventually("the last line", () => / lost\n$/.test(text += readAll(there)));
  const lines = text.trimEnd().split("\n");
  assert.equal(lines.length - 1 + Number(lines.at(-1)?.split(" ")[0]), 10_000);
  writer.write("again");
  assert.equal(readAll(there), "again\n");
  await writer.end(0);
});

test("a reader that has gone is told of once, and is no trouble", LIMIT, async (t) => {
  onEnd(t, noteDescriptors());
  const [here, there] = socketPair();
  onEnd(t, () => close(here));
  let gone = 0;
  const writer = new LineWriter(here, Reactor.shared(), { ...quiet, onGone: () => gone++ });
  writer.write("one");
  close(there);
  for (let i = 0; i < 10; i++) writer.write("two");
  assert.equal(gone, 1);
  await writer.end(1000);
});

test("the end waits for the reader, but not for ever", LIMIT, async (t) => {
  onEnd(t, noteDescriptors());
  const [here, there] = socketPair();
  onEnd(t, () => [here, there].forEach(close));
  const writer = new LineWriter(here, Reactor.shared(), quiet);
  const line = "x".repeat(999);
  for (let i = 0; i < 2000; i++) writer.write(line);
  const start = performance.now();
  await writer.end(50);
  assert.ok(performance.now() - start < 20_000);
});

test("a file takes lines as well", LIMIT, async (t) => {
  const fd = openFile(join(tempDir(t), "trace"), OpenFlag.READ_WRITE | OpenFlag.CREATE);
  onEnd(t, () => close(fd));
  const writer = new LineWriter(fd, Reactor.shared(), quiet);
  for (let i = 0; i < 3; i++) writer.write(`${i}`);
  await writer.end(0);
  assert.equal(readFileSync(`/proc/self/fd/${fd}`, "utf8"), "0\n1\n2\n");
});
