import assert from "node:assert/strict";
import { test } from "node:test";
import { close } from "../../ffi/fd.ts";
import { eventfd } from "../../ffi/eventfd.ts";
import { protocolFeatures, ringFeatures } from "../../src/protocol/features.ts";
import type { Header } from "../../src/protocol/header.ts";
import { backendMessages, frontendMessages } from "../../src/protocol/messages.ts";
import { Agreement, Conversation, type Reading } from "../../src/tools/trace/conversation.ts";
import { eventually, LIMIT } from "../session/scene.ts";
import { concat, number32, u32, u64 } from "../session/wire.ts";
import { onEnd } from "../support/cleanup.ts";
import { bytesOf, type Name, NEED_REPLY, PLAIN, REPLY, TraceScene } from "./trace_scene.ts";

// What the tracer sees: which answer belongs to which request, and what breaks the rules.

const bit = (name: keyof typeof protocolFeatures) => 1n << BigInt(protocolFeatures[name]);
const ALL = (1n << 23n) - 1n;
const FEATURES = 1n << BigInt(ringFeatures.PROTOCOL_FEATURES) | 1n << BigInt(ringFeatures.ACCESS_PLATFORM);

/** Both connections of a session, without sockets. Time passes by one with every message. */
class Talk {
  readonly agreement = new Agreement();
  readonly main = new Conversation(frontendMessages, "front-end", this.agreement);
  readonly channel = new Conversation(backendMessages, "back-end", this.agreement);
  #time = 0;

  constructor(protocol: bigint = ALL, features: bigint = FEATURES) {
    this.agreement.offered = features;
    this.agreement.offeredProtocol = this.agreement.protocol = protocol;
  }

  #say(from: "front-end" | "back-end", name: Name, payload: Uint8Array, flags: number, fds: number): Reading {
    const bytes = bytesOf(name, payload, flags);
    const header: Header = { request: number32(bytes), flags: number32(bytes, 4), size: payload.length };
    const channel = typeof name === "string" && name.startsWith(".");
    return (channel ? this.channel : this.main).read(from, header, payload, fds, ++this.#time);
  }

  front(name: Name, payload = new Uint8Array(0), flags = PLAIN, fds = 0): Reading {
    return this.#say("front-end", name, payload, flags, fds);
  }

  back(name: Name, payload = new Uint8Array(0), flags = REPLY, fds = 0): Reading {
    return this.#say("back-end", name, payload, flags, fds);
  }
}

/** Expects one violation, or none. */
function broken(reading: Reading, pattern?: RegExp): void {
  if (pattern === undefined) return assert.deepEqual(reading.violations, []);
  assert.equal(reading.violations.length, 1, `one violation: ${reading.violations}`);
  assert.match(reading.violations[0], pattern);
}

test("an answer knows its request and how long it took", () => {
  const talk = new Talk();
  talk.front("GET_FEATURES");
  talk.front("SET_VRING_NUM", u32(0, 8), NEED_REPLY);
  const features = talk.back("GET_FEATURES", u64(FEATURES));
  const ack = talk.back("SET_VRING_NUM", u64(0));
  broken(features);
  broken(ack);
  assert.deepEqual([features.latency, ack.latency], [2, 2]);
  assert.deepEqual([features.content.kind, ack.content.kind], ["u64", "ack"]);
  assert.deepEqual(talk.main.unanswered, []);
});

test("failure is seen in every form that it has", () => {
  const talk = new Talk();
  talk.front("SET_VRING_NUM", u32(0, 7), NEED_REPLY);
  assert.equal(talk.back("SET_VRING_NUM", u64(1)).failed, true);
  talk.front("GET_CONFIG", concat(u32(0, 8, 0), new Uint8Array(8)));
  assert.equal(talk.back("GET_CONFIG").failed, true);
  talk.front("GET_CONFIG", concat(u32(0, 8, 0), new Uint8Array(8)));
  assert.equal(talk.back("GET_CONFIG", u32(0, 0, 0)).failed, true);
  talk.front("GET_CONFIG", concat(u32(0, 8, 0), new Uint8Array(8)));
  assert.equal(talk.back("GET_CONFIG", concat(u32(0, 8, 0), new Uint8Array(8))).failed, false);
  talk.front("SET_DEVICE_STATE_FD", u32(0, 0), PLAIN, 1);
  assert.equal(talk.back("SET_DEVICE_STATE_FD", u64(0x101)).failed, true);
  talk.front("IOTLB_MSG", concat(u64(0, 4096, 0), new Uint8Array([3, 2, 0, 0, 0, 0, 0, 0])));
  const iotlb = talk.back("IOTLB_MSG", u64(0));
  assert.equal(iotlb.failed, false);
  broken(iotlb);
});

test("an answer that nobody has asked for", () => {
  const talk = new Talk();
  broken(talk.back("GET_FEATURES", u64(0)), /nobody has asked/);
  talk.front("SET_VRING_NUM", u32(0, 8));
  broken(talk.back("SET_VRING_NUM", u64(0)), /nobody has asked/);
  talk.front("GET_QUEUE_NUM");
  broken(talk.back("GET_QUEUE_NUM", u64(1)));
  broken(talk.back("GET_QUEUE_NUM", u64(1)), /nobody has asked/);
});

test("answers out of order", () => {
  const talk = new Talk();
  talk.front("GET_FEATURES");
  talk.front("GET_QUEUE_NUM");
  broken(talk.back("GET_QUEUE_NUM", u64(1)), /answered before GET_FEATURES/);
  assert.deepEqual(talk.main.unanswered, ["GET_FEATURES"]);
  broken(talk.back("GET_FEATURES", u64(FEATURES)));
});

test("wrong flags", () => {
  const talk = new Talk();
  broken(talk.front("SET_OWNER", undefined, 2), /version must be 1, got 2/);
  broken(talk.front("SET_OWNER", undefined, 0x11), /reserved header flags must be 0, got 0x10/);
  broken(talk.front("SET_OWNER", undefined, REPLY), /a reply came where a request was expected/);
  broken(talk.back("SET_OWNER", undefined, PLAIN), /a request came where a reply was expected/);
  talk.front("GET_FEATURES");
  broken(talk.back("GET_FEATURES", u64(FEATURES), 0xd), /must not have need_reply/);
  // On the channel it is the back-end that asks.
  broken(talk.back(".CONFIG_CHANGE_MSG", undefined, NEED_REPLY));
  broken(talk.front(".CONFIG_CHANGE_MSG", u64(0), REPLY));
  broken(talk.front(".CONFIG_CHANGE_MSG", undefined, PLAIN), /a request came where a reply was expected/);
});

test("wrong sizes and values", () => {
  const talk = new Talk();
  broken(talk.front("SET_VRING_NUM", new Uint8Array(7)), /payload: expected 8 bytes, got 7/);
  broken(talk.front("SET_OWNER", new Uint8Array(1)), /payload: expected 0 bytes, got 1/);
  broken(
    talk.front("SET_VRING_ADDR", concat(u32(0, 0), u64(8, 0, 0, 0))),
    /descriptor address must be a multiple/,
  );
  talk.front("GET_FEATURES");
  broken(talk.back("GET_FEATURES", u32(0)), /payload: expected 8 bytes, got 4/);
  // User-Mode Linux sends more than it says, which everybody takes.
  broken(talk.front("SET_MEM_TABLE", concat(u32(1, 0), u64(0, 4096, 0, 0, 0, 0, 0, 0)), PLAIN, 1));
});

test("descriptors that are too many, too few, or not those that the payload announces", () => {
  const talk = new Talk();
  broken(talk.front("SET_OWNER", undefined, PLAIN, 1), /descriptors: expected 0, got 1/);
  broken(talk.front("SET_LOG_FD", undefined, PLAIN, 0), /descriptors: expected 1, got 0/);
  broken(talk.front("SET_VRING_KICK", u64(0), PLAIN, 0), /expected 1 by flag bit 8 .* got 0/);
  broken(talk.front("SET_VRING_KICK", u64(0x100), PLAIN, 1), /expected 0 by flag bit 8 .* got 1/);
  broken(talk.front("SET_VRING_KICK", u64(0x100), PLAIN, 0));
  broken(
    talk.front("SET_MEM_TABLE", concat(u32(1, 0), u64(0, 4096, 0, 0)), PLAIN, 2),
    /one for each of 1, got 2/,
  );
  talk.front("GET_FEATURES");
  broken(talk.back("GET_FEATURES", u64(FEATURES), REPLY, 1), /descriptors: expected 0, got 1/);
});

test("messages whose feature was not negotiated", () => {
  const talk = new Talk(bit("MQ"), 0n);
  broken(talk.front("GET_QUEUE_NUM"));
  broken(talk.front("GET_MAX_MEM_SLOTS"), /protocol feature CONFIGURE_MEM_SLOTS was not negotiated/);
  broken(talk.front("SET_VRING_ENABLE", u32(0, 1)), /feature PROTOCOL_FEATURES is not offered/);
  broken(talk.front("SET_VRING_NUM", u32(0, 8), NEED_REPLY), /need_reply, and REPLY_ACK was not negotiated/);
  broken(talk.back(".CONFIG_CHANGE_MSG", undefined, PLAIN), /protocol feature CONFIG was not negotiated/);
  const more = new Talk(bit("SHMEM"));
  const map = concat(new Uint8Array(8), u64(0, 0, 4096, 1));
  broken(more.back(".SHMEM_MAP", map, PLAIN, 1), /descriptors, and protocol feature BACKEND_SEND_FD was not/);
});

test("features that were not offered", () => {
  const talk = new Talk(bit("MQ"), FEATURES);
  broken(talk.front("SET_FEATURES", u64(FEATURES | 1n << 34n)), /not offered: RING_PACKED/);
  broken(talk.front("SET_PROTOCOL_FEATURES", u64(bit("MQ") | bit("CONFIG"))), /not offered: CONFIG/);
  // What was accepted counts, whatever was offered.
  broken(talk.front("GET_CONFIG", u32(0, 0, 0)));
});

test("a surplus acknowledgement is tolerated where the rules leave it open", () => {
  const talk = new Talk(0n);
  // libvhost-user answers need_reply also without REPLY_ACK.
  broken(talk.front("SET_VRING_NUM", u32(0, 8), NEED_REPLY), /REPLY_ACK/);
  broken(talk.back("SET_VRING_NUM", u64(0)));
  talk.front("SET_VRING_NUM", u32(0, 8), NEED_REPLY);
  talk.front("GET_FEATURES");
  broken(talk.back("GET_FEATURES", u64(FEATURES)));
  assert.deepEqual(talk.main.unanswered, []);
});

test("messages that the table does not have are no violation, and their answers are found", () => {
  const talk = new Talk();
  broken(talk.front(1000, u64(5)));
  const reply = talk.back(1000, u64(7));
  broken(reply);
  assert.deepEqual([reply.latency, reply.failed, reply.content.kind], [1, false, undefined]);
  talk.front(1001, u64(5), NEED_REPLY);
  const ack = talk.back(1001, u64(1));
  broken(ack);
  assert.deepEqual([ack.failed, ack.content.kind], [true, "ack"]);
});

test("postcopy has answers of its own", () => {
  const talk = new Talk();
  const region = u64(0, 0, 4096, 0, 0);
  talk.front("POSTCOPY_LISTEN", undefined, NEED_REPLY);
  broken(talk.back("POSTCOPY_LISTEN", u64(0)));
  broken(talk.front("ADD_MEM_REG", region, PLAIN, 1));
  const answer = talk.back("ADD_MEM_REG", region);
  broken(answer);
  assert.equal(answer.content.kind, "memoryRegion");
  broken(talk.front("ADD_MEM_REG", u64(0)));
  broken(talk.front("SET_MEM_TABLE", concat(u32(1, 0), u64(0, 4096, 0, 0)), PLAIN, 1));
  broken(talk.back("SET_MEM_TABLE", concat(u32(1, 0), u64(0, 4096, 0, 0))));
  broken(talk.front("SET_MEM_TABLE", u64(0)));
  talk.front("POSTCOPY_END", undefined, NEED_REPLY);
  broken(talk.back("POSTCOPY_END", u64(0)));
  assert.deepEqual(talk.main.unanswered, []);
});

test("SET_LOG_BASE is answered in three ways, and none of them is wrong", () => {
  const talk = new Talk();
  for (const answer of [u64(65536, 0), u64(0), new Uint8Array(0)]) {
    broken(talk.front("SET_LOG_BASE", u64(65536, 0), PLAIN, 1));
    const reply = talk.back("SET_LOG_BASE", answer);
    broken(reply);
    assert.equal(reply.failed, false);
  }
});

test("a flood of questions without answers does not fill the memory", () => {
  const talk = new Talk();
  for (let i = 0; i < 5000; i++) talk.front(1000 + i);
  talk.front("GET_FEATURES");
  for (let i = 0; i < 5000; i++) talk.front("SET_OWNER", undefined, NEED_REPLY);
  assert.ok(talk.main.unanswered.length <= 1024);
});

test("what breaks the rules on the socket is told, and passed on all the same", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.negotiated(bit("REPLY_ACK"));
  const start = scene.messages.length;
  front.say("GET_QUEUE_NUM");
  await back.hear("GET_QUEUE_NUM");
  back.say("GET_QUEUE_NUM", u64(4), REPLY);
  back.say("GET_QUEUE_NUM", u64(4), REPLY);
  await front.hear("GET_QUEUE_NUM", u64(4), REPLY);
  await front.hear("GET_QUEUE_NUM", u64(4), REPLY);
  front.say("SET_VRING_NUM", u32(0, 3), NEED_REPLY);
  await back.hear("SET_VRING_NUM", u32(0, 3), NEED_REPLY);
  back.say("SET_VRING_NUM", u64(1), REPLY);
  await front.hear("SET_VRING_NUM", u64(1), REPLY);
  const event = eventfd();
  onEnd(t, () => close(event));
  front.say("SET_OWNER", undefined, PLAIN, [event]);
  await back.take(t, "SET_OWNER");
  await eventually("all told", () => scene.messages.length === start + 6);
  assert.deepEqual(scene.messages.slice(start).map(({ violations, failed }) => [violations, failed]), [
    [["protocol feature MQ was not negotiated"], false],
    [[], false],
    [["a reply that nobody has asked for"], false],
    [[], false],
    [[], true],
    [["descriptors: expected 0, got 1"], false],
  ]);
  const latency = scene.messages[start + 4].latency ?? 0;
  assert.ok(latency > 0 && latency < 1000, `${latency} ms`);
});
