import assert from "node:assert/strict";
import { test } from "node:test";
import { anEvent } from "./descriptors.ts";
import { messageBytes, NEED_REPLY } from "./raw_peer.ts";
import { aWhile, LIMIT, Scene } from "./scene.ts";
import { concat, number32, u32, u64 } from "./wire.ts";

test("many requests in one send are answered in their order", LIMIT, async (t) => {
  const peer = (await Scene.disk(t)).peer();
  await peer.negotiate();
  const names = [
    "GET_FEATURES",
    "GET_QUEUE_NUM",
    "GET_STATUS",
    "GET_MAX_MEM_SLOTS",
    "GET_VRING_BASE",
  ] as const;
  const requests: Uint8Array[] = [];
  for (let i = 0; i < 100; i++) {
    requests.push(messageBytes("SET_STATUS", u64(i), NEED_REPLY));
    requests.push(messageBytes(names[i % 5], names[i % 5] === "GET_VRING_BASE" ? u32(1, 0) : undefined));
  }
  peer.bytes(concat(...requests));
  for (let i = 0; i < 100; i++) {
    assert.deepEqual(await peer.answer("SET_STATUS"), u64(0));
    const answer = await peer.answer(names[i % 5]);
    if (names[i % 5] === "GET_STATUS") assert.deepEqual(answer, u64(i), "what was set just before");
  }
});

test("messages that come byte by byte are put together", LIMIT, async (t) => {
  const peer = (await Scene.disk(t)).peer();
  await peer.negotiate();
  const bytes = concat(
    messageBytes("SET_VRING_BASE", u32(3, 0x1234), NEED_REPLY),
    messageBytes("GET_VRING_BASE", u32(3, 0)),
  );
  for (let i = 0; i < bytes.length; i++) {
    peer.bytes(bytes.subarray(i, i + 1));
    // Now and then the back-end finds the message unfinished.
    if (i % 7 === 0) await aWhile();
  }
  assert.deepEqual(await peer.answer("SET_VRING_BASE"), u64(0));
  const answer = await peer.answer("GET_VRING_BASE");
  assert.deepEqual([number32(answer), number32(answer, 4)], [3, 0x1234]);
});

test("a message may be cut anywhere", LIMIT, async (t) => {
  const peer = (await Scene.disk(t)).peer();
  await peer.negotiate();
  const bytes = messageBytes("GET_CONFIG", concat(u32(0, 57, 0), new Uint8Array(57)));
  for (let cut = 1; cut < bytes.length; cut++) {
    peer.bytes(bytes.subarray(0, cut));
    if (cut % 12 === 0) await aWhile();
    peer.bytes(bytes.subarray(cut));
    assert.equal((await peer.answer("GET_CONFIG")).length, 69);
  }
});

test("descriptors come with the first byte, the payload later", LIMIT, async (t) => {
  const peer = (await Scene.disk(t)).peer();
  await peer.negotiate();
  const event = anEvent(t);
  const bytes = messageBytes("SET_VRING_CALL", u64(0), NEED_REPLY);
  peer.bytes(bytes.subarray(0, 1), [event]);
  await aWhile();
  peer.bytes(bytes.subarray(1, 14));
  await aWhile();
  peer.bytes(bytes.subarray(14));
  assert.deepEqual(await peer.answer("SET_VRING_CALL"), u64(0));
});

test("descriptors of pipelined messages stay with theirs", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const peer = scene.peer();
  await peer.negotiate();
  const event = anEvent(t);
  peer.bytes(messageBytes("SET_VRING_CALL", u64(0), NEED_REPLY), [event]);
  peer.bytes(messageBytes("SET_VRING_CALL", u64(0x101), NEED_REPLY));
  peer.bytes(messageBytes("SET_VRING_CALL", u64(2), NEED_REPLY));
  peer.bytes(messageBytes("SET_VRING_CALL", u64(3), NEED_REPLY), [event]);
  const answers: number[] = [];
  for (let i = 0; i < 4; i++) answers.push(number32(await peer.answer("SET_VRING_CALL")));
  assert.deepEqual(answers, [0, 0, 1, 0]);
  await scene.log.problem(/SET_VRING_CALL: descriptors must be one without flag bit 8, got 0$/);
});

test(
  "a front-end that does not read its answers loses the connection, and nobody else does",
  LIMIT,
  async (t) => {
    const scene = await Scene.disk(t);
    const [deaf, other] = [scene.peer(), scene.peer()];
    const ask = concat(...Array.from({ length: 64 }, () => messageBytes("GET_FEATURES")));
    await assert.rejects(async () => {
      for (let i = 0; i < 1000; i++) {
        deaf.bytes(ask);
        await other.number("GET_FEATURES");
      }
    }, "in the end nothing more can be sent");
    await scene.log.problem(/^error: .*GET_FEATURES: the peer does not read its messages: buffer full$/);
    await other.number("GET_FEATURES");
  },
);
