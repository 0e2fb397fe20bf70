import assert from "node:assert/strict";
import { test } from "node:test";
import { NEED_REPLY, PLAIN, REPLY_ACK } from "./raw_peer.ts";
import { aWhile, LIMIT, Scene } from "./scene.ts";
import { number32, u32, u64 } from "./wire.ts";

const bit = (n: number): bigint => 1n << BigInt(n);
const PROTOCOL_FEATURES = bit(30);
const ADMIN_VQ = bit(41);
const XEN_MMAP = bit(17);
const STATUS = bit(16);

test("the features of ring and device are offered, the same each time", LIMIT, async (t) => {
  const peer = (await Scene.disk(t)).peer();
  const offered = await peer.number("GET_FEATURES");
  for (const each of [28, 29, 30, 32]) assert.ok(offered & bit(each), `feature ${each}`);
  assert.equal(
    offered & 0xff_ffffn,
    0x7e44n,
    "SEG_MAX BLK_SIZE FLUSH TOPOLOGY CONFIG_WCE MQ DISCARD WRITE_ZEROES",
  );
  peer.say("SET_FEATURES", u64(offered));
  assert.equal(await peer.number("GET_FEATURES"), offered);
});

test("protocol features are offered before SET_FEATURES, without what nobody can use", LIMIT, async (t) => {
  const peer = (await Scene.disk(t)).peer();
  const offered = await peer.number("GET_PROTOCOL_FEATURES");
  // MQ, REPLY_ACK, BACKEND_REQ, CONFIG, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS
  for (const each of [0, 3, 5, 9, 13, 15, 16]) assert.ok(offered & bit(each), `protocol feature ${each}`);
  // INBAND_NOTIFICATIONS, which QEMU accepts without having it, and XEN_MMAP
  for (const each of [14, 17]) assert.equal(offered & bit(each), 0n, `protocol feature ${each}`);
});

test("a feature that was not offered is refused by name, and the session goes on", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const peer = scene.peer();
  await peer.negotiate();
  const offered = await peer.number("GET_FEATURES");
  assert.equal(await peer.ack("SET_FEATURES", u64(offered | ADMIN_VQ)), 1n);
  await scene.log.problem(/^warning: .*SET_FEATURES: features must be among those offered, got ADMIN_VQ$/);
  const protocol = await peer.number("GET_PROTOCOL_FEATURES");
  assert.equal(await peer.ack("SET_PROTOCOL_FEATURES", u64(protocol | XEN_MMAP)), 1n);
  await scene.log.problem(/SET_PROTOCOL_FEATURES: features must be among those offered, got XEN_MMAP$/);
  assert.equal(await peer.ack("SET_FEATURES", u64(offered)), 0n, "what was accepted before still holds");
});

for (const [whether, flags] of [["asked", NEED_REPLY], ["not asked", PLAIN]] as const) {
  test(
    `without REPLY_ACK there is no way to refuse, so the connection ends, ${whether} for an answer`,
    LIMIT,
    async (t) => {
      const scene = await Scene.disk(t);
      const peer = scene.peer();
      peer.say("SET_FEATURES", u64(ADMIN_VQ), [], flags);
      await peer.end();
      await scene.log.problem(/^error: .*session is over.*SET_FEATURES: features must be.*ADMIN_VQ$/);
    },
  );
}

test("with REPLY_ACK each request that asks is acknowledged, and no other", LIMIT, async (t) => {
  const peer = (await Scene.disk(t)).peer();
  await peer.negotiate();
  assert.equal(await peer.ack("SET_OWNER"), 0n);
  assert.equal(await peer.ack("SET_VRING_NUM", u32(0, 64)), 0n);
  assert.equal(await peer.ack("SET_VRING_NUM", u32(0, 63)), 1n);
  assert.equal(await peer.ack("SET_STATUS", u64(1)), 0n);
  peer.say("SET_OWNER");
  peer.say("SET_VRING_NUM", u32(0, 64));
  await peer.number("GET_FEATURES");
});

test("without REPLY_ACK nothing is acknowledged, asked or not", LIMIT, async (t) => {
  const peer = (await Scene.disk(t)).peer();
  await peer.negotiate(STATUS);
  peer.say("SET_OWNER", undefined, [], NEED_REPLY);
  peer.say("SET_VRING_NUM", u32(0, 64), [], NEED_REPLY);
  peer.say("SET_STATUS", u64(1), [], NEED_REPLY);
  // The next answer belongs to this.
  await peer.number("GET_FEATURES");
});

test(
  "what has an answer of its own is answered once, also when an acknowledgement is asked for",
  LIMIT,
  async (t) => {
    const peer = (await Scene.disk(t)).peer();
    await peer.negotiate();
    await peer.ask("GET_QUEUE_NUM", undefined, NEED_REPLY);
    await peer.ask("GET_VRING_BASE", u32(0, 0), NEED_REPLY);
    await peer.ask("GET_STATUS", undefined, NEED_REPLY);
    await peer.number("GET_FEATURES");
  },
);

test(
  "an unknown message is answered as failed when the peer asks, and ends the session otherwise",
  LIMIT,
  async (t) => {
    const scene = await Scene.disk(t);
    const peer = scene.peer();
    await peer.negotiate();
    assert.equal(await peer.ack(99), 1n);
    await scene.log.problem(/^warning: .*message 99: no such message/);
    assert.equal(await peer.ack(0), 1n);
    await scene.log.problem(/^warning: .*message 0: no such message/);
    peer.say(99);
    await peer.end();
    await scene.log.problem(/^error: .*message 99: no such message/);
  },
);

test("a message whose protocol feature was not negotiated is refused", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const peer = scene.peer();
  await peer.negotiate(REPLY_ACK);
  assert.equal(await peer.ack("SET_STATUS", u64(1)), 1n);
  await scene.log.problem(/SET_STATUS: protocol feature STATUS was not negotiated$/);
  assert.equal(await peer.ack("RESET_DEVICE"), 1n);
  await scene.log.problem(/RESET_DEVICE: protocol feature RESET_DEVICE was not negotiated$/);
  peer.say("GET_QUEUE_NUM");
  await peer.end();
  await scene.log.problem(/^error: .*GET_QUEUE_NUM: protocol feature MQ was not negotiated$/);
});

test("SET_VRING_ENABLE is accepted before SET_FEATURES, as QEMU's net sends it", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const peer = scene.peer();
  peer.say("SET_PROTOCOL_FEATURES", u64(REPLY_ACK));
  assert.equal(await peer.ack("SET_VRING_ENABLE", u32(0, 1)), 0n);
  assert.equal(await peer.ack("SET_VRING_ENABLE", u32(0, 0)), 0n);
  assert.equal(await peer.ack("SET_VRING_ENABLE", u32(0, 2)), 1n);
  await scene.log.problem(/SET_VRING_ENABLE: num must be 0 or 1, got 2$/);
});

test("a front-end asks how many rings and memory slots there are", LIMIT, async (t) => {
  const peer = (await Scene.disk(t, { numQueues: 7 })).peer();
  await peer.negotiate();
  assert.equal(await peer.number("GET_QUEUE_NUM"), 7n);
  assert.equal(await peer.number("GET_MAX_MEM_SLOTS"), 509n);
});

test("what is negotiated belongs to one connection", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const first = scene.peer();
  await first.negotiate();
  const second = scene.peer();
  second.say("SET_OWNER", undefined, [], NEED_REPLY);
  await second.number("GET_FEATURES");
  assert.equal(await first.ack("SET_OWNER"), 0n);
});

test("features may not change while a ring runs, but may be sent again", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const frontEnd = await scene.frontEnd();
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  await frontEnd.startQueue(1, memory, { size: 8 });
  await frontEnd.request("SET_FEATURES", frontEnd.features);
  await assert.rejects(
    frontEnd.request("SET_FEATURES", frontEnd.features & ~bit(29)),
    /SET_FEATURES: the peer answered failure/,
  );
  await scene.log.problem(/SET_FEATURES: features must be left alone while ring 1 runs/);
});

test("GET_VRING_BASE of a ring that does not exist is answered all the same", LIMIT, async (t) => {
  const scene = await Scene.disk(t, { numQueues: 2 });
  const peer = scene.peer();
  const answer = await peer.ask("GET_VRING_BASE", u32(2, 0));
  assert.deepEqual([number32(answer), number32(answer, 4)], [2, 0]);
  await scene.log.problem(/GET_VRING_BASE: ring must be 0 to 1, got 2$/);
  await peer.number("GET_FEATURES");
});

test("PROTOCOL_FEATURES need not be accepted to negotiate protocol features", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const peer = scene.peer();
  await peer.negotiate(undefined, PROTOCOL_FEATURES);
  assert.equal(await peer.ack("SET_OWNER"), 0n);
  await aWhile();
  assert.deepEqual(scene.log.problems, []);
});
