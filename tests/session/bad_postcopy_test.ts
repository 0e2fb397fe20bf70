import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { consume, signal } from "../../ffi/eventfd.ts";
import type { SharedMemory } from "../../src/frontend/mod.ts";
import { anEvent } from "./descriptors.ts";
import { messageBytes, NEED_REPLY, type RawPeer } from "./raw_peer.ts";
import { type DiskScene, eventually, LIMIT, Scene, verify } from "./scene.ts";
import { concat, sendMessage, u32, u64 } from "./wire.ts";

const PAGEFAULT = 0x100n;
const NO_ACK = concat(u64(0));

/** A destination of a migration by postcopy; `undefined` where the kernel does not let us be one. */
async function destination(t: TestContext): Promise<{ scene: DiskScene; peer: RawPeer } | undefined> {
  const scene = await Scene.disk(t);
  const peer = scene.peer();
  if ((await peer.number("GET_PROTOCOL_FEATURES") & PAGEFAULT) === 0n) return undefined;
  await peer.negotiate(0x1_a329n, 1n << 29n);
  peer.say("POSTCOPY_ADVISE");
  const advice = await peer.next();
  assert.notEqual(advice, "end");
  if (advice !== "end") advice.fds.close();
  assert.deepEqual(await peer.ask("POSTCOPY_LISTEN", undefined, NEED_REPLY), u64(0));
  return { scene, peer };
}

/** Shares memory; the answer says where it is there. */
async function share(peer: RawPeer, memory: SharedMemory): Promise<void> {
  const { guestAddress, byteLength, userAddress } = memory;
  const payload = concat(u64(0), u64(guestAddress, byteLength, userAddress, 0));
  sendMessage(peer.fd, messageBytes("ADD_MEM_REG", payload), [memory.fd]);
  assert.equal((await peer.answer("ADD_MEM_REG")).length, 40);
}

/** SET_VRING_ADDR of ring 0, at the start of memory. */
function place(memory: SharedMemory): Uint8Array {
  const at = memory.userAddress;
  return concat(u32(0, 0), u64(at, at + 512n, at + 256n, 0));
}

test("a ring in memory that is not acknowledged yet is refused, not touched", LIMIT, async (t) => {
  const ready = await destination(t);
  if (ready === undefined) return t.diagnostic("userfaultfd is not available");
  const { scene, peer } = ready;
  const memory = scene.memory(4096);
  await share(peer, memory);
  assert.equal(await peer.ack("SET_VRING_NUM", u32(0, 8)), 0n);
  assert.equal(await peer.ack("SET_VRING_ADDR", place(memory)), 1n);
  await scene.log.problem(
    /SET_VRING_ADDR: ring 0: descriptor table .* is not within one region of the memory table$/,
  );
  await verify(await scene.driver(), 1);
});

test("a request in memory that is not acknowledged yet breaks its ring", LIMIT, async (t) => {
  const ready = await destination(t);
  if (ready === undefined) return t.diagnostic("userfaultfd is not available");
  const { scene, peer } = ready;
  const memory = scene.memory(4096, 0x1000_0000);
  // Every page is there, so none has to be waited for.
  const words = new DataView(memory.piece(0, 4096).bytes.fill(0).buffer);
  await share(peer, memory);
  peer.say("ADD_MEM_REG", NO_ACK);
  await share(peer, scene.memory(4096, 0x2000_0000));

  words.setBigUint64(0, 0x2000_0000n, true);
  words.setUint32(8, 16, true);
  words.setUint16(256 + 2, 1, true);
  const [kick, error] = [anEvent(t), anEvent(t)];
  peer.say("SET_VRING_NUM", u32(0, 8));
  peer.say("SET_VRING_ADDR", place(memory));
  peer.say("SET_VRING_ERR", u64(0), [error]);
  peer.say("SET_VRING_KICK", u64(0), [kick]);
  assert.equal(await peer.ack("SET_VRING_ENABLE", u32(0, 1)), 0n);
  signal(kick);
  await eventually("the ring is broken", () => consume(error) === "rung");
  await scene.log.problem(
    /ring 0 is broken .*descriptor 0 of head 0: 0x20000000\+16 is not in guest memory$/,
  );
  await verify(await scene.driver(), 1);
});
