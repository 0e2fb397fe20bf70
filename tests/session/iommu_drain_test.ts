import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { BlkDevice } from "../../src/devices/blk/mod.ts";
import type { FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { IotlbType } from "../../src/protocol/mod.ts";
import { onEnd } from "../support/cleanup.ts";
import type { RawPeer } from "./raw_peer.ts";
import { GatedStorage } from "./gated_storage.ts";
import { putRead } from "./requests.ts";
import { Ring } from "./rings.ts";
import { aWhile, eventually, LIMIT, Scene } from "./scene.ts";

const ACCESS_PLATFORM = 1n << 33n;
/** What rings that are written by hand do not do: EVENT_IDX, RING_PACKED, IN_ORDER. */
const NOT_BY_HAND = 0xc_2000_0000n;
const UNUSED = 0x9000_0000n;

/** An entry of the IOTLB, or the end of one: the memory at an address of the driver. */
async function iotlb(frontEnd: FrontEnd, memory: SharedMemory, type: number, iova: bigint): Promise<void> {
  const { byteLength, userAddress } = memory;
  await frontEnd.request("IOTLB_MSG", { iova, size: BigInt(byteLength), userAddress, permission: 3, type });
}

/** A front-end behind an IOMMU with two rings, the first of which has a request that is with the storage. */
async function stage(t: TestContext): Promise<{
  scene: Scene;
  storage: GatedStorage;
  frontEnd: FrontEnd;
  memory: SharedMemory;
  idle: Ring;
}> {
  const storage = new GatedStorage();
  const disk = new BlkDevice({ storage, shared: true });
  onEnd(t, () => disk.close());
  const scene = await Scene.open(t, disk, { iommu: true });
  const frontEnd = await scene.frontEnd({ deviceFeatures: ACCESS_PLATFORM, withoutFeatures: NOT_BY_HAND });
  assert.ok(frontEnd.features & ACCESS_PLATFORM);
  const memory = scene.memory(1 << 16);
  await frontEnd.shareMemory(memory);
  // The rings are known to the driver by one address, what is in them by another, and there is a third.
  for (const iova of [memory.userAddress, BigInt(memory.guestAddress), UNUSED]) {
    await iotlb(frontEnd, memory, IotlbType.UPDATE, iova);
  }
  const [busy, idle] = [0, 1].map((index) => new Ring(t, frontEnd, memory, { index }));
  for (const each of [busy, idle]) await each.start();
  busy.send(putRead(busy, memory, 0, 0).head);
  await eventually("the request is with the storage", () => storage.held.length === 1);
  return { scene, storage, frontEnd, memory, idle };
}

test("while an IOTLB entry goes away no ring takes anything new", LIMIT, async (t) => {
  const { storage, frontEnd, memory, idle } = await stage(t);
  let gone = false;
  const invalidated = iotlb(frontEnd, memory, IotlbType.INVALIDATE, UNUSED).then(() => gone = true);
  await aWhile();
  idle.send(putRead(idle, memory, 0, 1).head);
  await aWhile();
  assert.equal(gone, false, "a request is under way, and may use the entry");
  assert.equal(storage.held.length, 1, "another could use it as well, so it waits");

  storage.release();
  await invalidated;
  await eventually("the other ring goes on", () => storage.held.length === 1);
  storage.release();
  await idle.until(1);
});

test("an answer that comes too late goes to nobody", LIMIT, async (t) => {
  const { scene, storage, frontEnd, memory } = await stage(t);
  const other = await Scene.disk(t);
  const lost = assert.rejects(iotlb(frontEnd, memory, IotlbType.INVALIDATE, UNUSED), /before it answered/);
  await aWhile();
  scene.server.close();
  await lost;
  // One of these gets the number of the descriptor that the old connection had.
  const peers: RawPeer[] = [];
  for (let i = 0; i < 8; i++) {
    const peer = other.peer();
    await peer.negotiate();
    peers.push(peer);
  }
  storage.release();
  await scene.server.finished;
  for (const peer of peers) await peer.number("GET_FEATURES");
  assert.deepEqual([...scene.log.problems, ...other.log.problems], []);
});
