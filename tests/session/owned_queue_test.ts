import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { type Chain, defineDevice, type OwnedQueue, type QueueOwner } from "../../mod.ts";
import type { FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { packedBase } from "../../src/virtqueue/packed_layout.ts";
import { buffer } from "./requests.ts";
import { Ring, WRITE } from "./rings.ts";
import { aWhile, eventually, LIMIT, Scene } from "./scene.ts";

/** RING_PACKED; EVENT_IDX and IN_ORDER, which rings written by hand do not do either. */
const PACKED = 1n << 34n;
const IN_ORDER = 1n << 35n;
const NOT_BY_HAND = 0xe_2000_0000n;

/** An owner that delivers numbers, and writes down what happens to it. */
class Counter implements QueueOwner {
  readonly events: string[] = [];
  readonly held: Chain[] = [];
  queue: OwnedQueue | undefined;
  /** What to do with what is held when the ring stops. */
  atStop: (queue: OwnedQueue) => void = () => {};
  atWork: (queue: OwnedQueue) => boolean | void = () => {};

  start(queue: OwnedQueue): void {
    this.events.push("start");
    this.queue = queue;
  }

  work(queue: OwnedQueue): boolean | void {
    this.events.push("work");
    return this.atWork(queue);
  }

  stop(queue: OwnedQueue): void {
    this.events.push("stop");
    this.atStop(queue);
    this.held.length = 0;
    this.queue = undefined;
  }

  /** Takes chains, as many as there are. */
  hold(most = Infinity): number {
    let taken = 0;
    for (let chain; taken < most && (chain = this.queue?.take()); taken++) this.held.push(chain);
    return taken;
  }

  /** Completes one of those held. */
  deliver(value: number, at = 0): void {
    const [chain] = this.held.splice(at, 1);
    chain.write(Uint8Array.of(value));
    this.queue?.complete(chain);
  }
}

interface Stage {
  readonly scene: Scene;
  readonly owner: Counter;
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
}

async function stage(
  t: TestContext,
  withoutFeatures = PACKED,
  owner = new Counter(),
  deviceFeatures = 0n,
): Promise<Stage> {
  const scene = await Scene.open(t, defineDevice({ type: 63, queues: [owner] }));
  const frontEnd = await scene.frontEnd({ withoutFeatures, deviceFeatures });
  const memory = scene.memory(1 << 18);
  await frontEnd.shareMemory(memory);
  return { scene, owner, frontEnd, memory };
}

/** A ring written by hand with writable buffers of 16 bytes in its first descriptors. */
async function byHand(
  t: TestContext,
  buffers = 4,
): Promise<Stage & { ring: Ring; bytes(at: number): Uint8Array }> {
  const all = await stage(t, NOT_BY_HAND);
  const ring = new Ring(t, all.frontEnd, all.memory);
  const room = all.memory.allocate(16 * ring.size, 16);
  for (let i = 0; i < ring.size; i++) {
    ring.describe(i, { address: room.guestAddress + 16 * i, length: 16, flags: WRITE });
  }
  ring.offer(...Array.from({ length: buffers }, (_, i) => i));
  await ring.start();
  await eventually("it runs", () => all.owner.queue !== undefined);
  return { ...all, ring, bytes: (at) => room.bytes.subarray(16 * at, 16 * at + 16) };
}

for (const [name, without] of [["split", PACKED], ["packed", 0n]] as const) {
  test(`a device delivers when it has something, without being asked (${name})`, LIMIT, async (t) => {
    const { owner, frontEnd, memory, scene } = await stage(t, without);
    const queue = await frontEnd.startQueue(0, memory, { size: 8 });
    const room = memory.allocate(64);
    const waiting = [0, 1, 2, 3].map((i) => queue.request([], [buffer(room, 16 * i, 16)]));
    await eventually("it is told of the first buffer", () => owner.events.includes("work"));
    assert.deepEqual(owner.events, ["start", "work"], "and of no other");
    assert.equal(owner.hold(2), 2);
    owner.deliver(7);
    assert.equal(await waiting[0], 1);
    assert.equal(room.bytes[0], 7);
    owner.deliver(8);
    assert.equal(await waiting[1], 1);
    assert.equal(owner.hold(), 2, "and then there was none");
    owner.deliver(9);
    owner.deliver(10);
    assert.deepEqual([await waiting[2], await waiting[3]], [1, 1]);
    assert.deepEqual([0, 16, 32, 48].map((at) => room.bytes[at]), [7, 8, 9, 10]);

    const works = owner.events.length;
    const late = queue.request([], [buffer(room, 0, 16)]);
    await eventually("it is told of a buffer, having found none", () => owner.events.length > works);
    assert.equal(owner.hold(), 1);
    owner.deliver(11);
    assert.equal(await late, 1);
    assert.deepEqual(scene.log.problems, []);
  });

  test(`what is held when the ring stops is available again (${name})`, LIMIT, async (t) => {
    const { owner, frontEnd, memory } = await stage(t, without);
    const queue = await frontEnd.startQueue(0, memory, { size: 8 });
    const room = memory.allocate(64);
    const waiting = [0, 1, 2].map((i) => queue.request([], [buffer(room, 16 * i, 16)]));
    const lost = waiting.slice(1).map((each) => assert.rejects(each, /is closed/));
    await eventually("it runs", () => owner.queue !== undefined);
    assert.equal(owner.hold(), 3);
    owner.deliver(1);
    const base = await frontEnd.stopQueue(queue);
    assert.equal(await waiting[0], 1, "shown before the answer");
    assert.equal(base, without === 0n ? packedBase(0x8001, 0x8001) : 1);
    assert.equal(owner.events.at(-1), "stop");
    await Promise.all(lost);
  });
}

test("a ring that goes on hands out the same chains", LIMIT, async (t) => {
  const { owner, ring, bytes } = await byHand(t);
  assert.equal(owner.hold(3), 3);
  const heads = owner.held.map(({ head }) => head);
  owner.deliver(1);
  const base = await ring.stop();
  assert.equal(base, 1);
  assert.equal(ring.usedIndex, 1);
  await ring.place(base);
  await ring.setKick();
  await eventually("it runs again", () => owner.queue !== undefined);
  assert.equal(owner.hold(2), 2);
  assert.deepEqual(owner.held.map(({ head }) => head), heads.slice(1));
  owner.deliver(2);
  await ring.until(2);
  assert.deepEqual(ring.returned(1), { head: heads[1], written: 1 });
  assert.equal(bytes(heads[1])[0], 2);
});

test(
  "chains that were completed out of order cannot be named by a position: the others come back empty",
  LIMIT,
  async (t) => {
    const { owner, ring } = await byHand(t);
    assert.equal(owner.hold(3), 3);
    owner.deliver(5, 1);
    assert.equal(await ring.stop(), 3);
    assert.equal(ring.usedIndex, 3);
    assert.deepEqual(
      [0, 1, 2].map((i) => ring.returned(i)),
      [{ head: 1, written: 1 }, { head: 0, written: 0 }, { head: 2, written: 0 }],
    );
  },
);

test("with IN_ORDER, what was completed early comes back with what was written", LIMIT, async (t) => {
  const { owner, frontEnd, memory } = await stage(t, PACKED, new Counter(), IN_ORDER);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  const room = memory.allocate(48);
  const waiting = [0, 1, 2].map((i) => queue.request([], [buffer(room, 16 * i, 16)]));
  await eventually("it runs", () => owner.queue !== undefined);
  assert.equal(owner.hold(3), 3);
  const [first, second] = owner.held;
  owner.deliver(5, 1);
  owner.queue?.complete(second);
  await aWhile();
  assert.equal(first.inFlight, true);
  await frontEnd.stopQueue(queue);
  assert.deepEqual(await Promise.all(waiting), [0, 1, 0]);
});

test("the device can complete what it holds when the ring stops", LIMIT, async (t) => {
  const { owner, ring } = await byHand(t);
  assert.equal(owner.hold(2), 2);
  owner.atStop = () => {
    owner.deliver(5, 1);
    owner.deliver(6, 0);
  };
  assert.equal(await ring.stop(), 2);
  assert.deepEqual([ring.returned(0), ring.returned(1)], [{ head: 1, written: 1 }, { head: 0, written: 1 }]);
});

test("after GET_VRING_BASE nothing touches the ring", LIMIT, async (t) => {
  const { owner, ring } = await byHand(t);
  const { queue } = owner;
  assert.equal(owner.hold(2), 2);
  const [chain] = owner.held;
  await ring.stop();
  const before = ring.snapshot();
  queue?.complete(chain);
  queue?.publish();
  assert.equal(queue?.take(), null);
  ring.send(4);
  await aWhile();
  assert.deepEqual(ring.snapshot(), before);
  assert.deepEqual(owner.events, ["start", "work", "stop"]);
});

test("a chain from before the ring stopped is ignored afterwards", LIMIT, async (t) => {
  const { owner, ring } = await byHand(t);
  owner.hold(1);
  const [stale] = owner.held;
  const base = await ring.stop();
  await ring.place(base);
  await ring.setKick();
  await eventually("it runs again", () => owner.queue !== undefined);
  owner.queue?.complete(stale);
  await aWhile();
  assert.equal(ring.usedIndex, 0);
});

test(
  "what a device writes into a chain that is not its own any more is not in the next request",
  LIMIT,
  async (t) => {
    const { owner, ring } = await byHand(t);
    owner.hold(1);
    const { queue, held: [stale] } = owner;
    await ring.enable(false);
    stale.written = 12;
    queue?.complete(stale);
    await ring.enable();
    await eventually("it runs again", () => owner.queue !== undefined);
    owner.hold(1);
    owner.deliver(1);
    await ring.until(1);
    assert.deepEqual(ring.returned(0), { head: 0, written: 1 });
  },
);

test("of a ring that breaks in the middle of a burst nothing is taken", LIMIT, async (t) => {
  const { owner, ring, scene } = await byHand(t);
  const burst: Chain[] = [];
  assert.equal(owner.queue?.takeBurst(burst, 3, 1), 1);
  assert.equal(burst[3].head, 0);
  owner.queue?.complete(burst[3]);
  await ring.until(1);
  ring.describe(3, { address: 1, length: 16, flags: WRITE });
  assert.equal(owner.queue?.takeBurst(burst, 0, 5), 0);
  assert.deepEqual(owner.events.at(-1), "stop");
  assert.equal(scene.log.problems.length, 1);
});

test("a disabled ring is not the device's; enabled again it is", LIMIT, async (t) => {
  const { owner, ring } = await byHand(t);
  owner.hold(2);
  await ring.enable(false);
  assert.deepEqual(owner.events, ["start", "work", "stop"]);
  assert.equal(owner.queue, undefined);
  const before = ring.snapshot();
  ring.send(4);
  await aWhile();
  assert.deepEqual(ring.snapshot(), before);
  await ring.enable();
  await eventually("it is", () => owner.events.length === 5);
  assert.deepEqual(owner.events.slice(3), ["start", "work"]);
  assert.equal(owner.hold(), 5);
  owner.deliver(1);
  await ring.until(1);
  assert.equal(ring.returned(0).head, 0);
});

test("RESET_DEVICE takes the ring away", LIMIT, async (t) => {
  const { owner, ring, frontEnd } = await byHand(t);
  owner.hold(2);
  await frontEnd.request("RESET_DEVICE", undefined);
  assert.deepEqual(owner.events, ["start", "work", "stop"]);
  const before = ring.snapshot();
  ring.send(4);
  await aWhile();
  assert.deepEqual(ring.snapshot(), before);
  assert.deepEqual(owner.events, ["start", "work", "stop"]);
});

test("when the front-end leaves, the ring is not touched any more", LIMIT, async (t) => {
  const { owner, ring, frontEnd, scene } = await byHand(t);
  owner.hold(2);
  owner.atStop = () => owner.deliver(1);
  const before = ring.snapshot();
  frontEnd.close();
  await eventually("the session is over", () => scene.server.sessions === 0);
  assert.deepEqual(owner.events, ["start", "work", "stop"]);
  assert.deepEqual(ring.snapshot(), before);
  assert.deepEqual(scene.log.problems, []);
});

test("while guest memory changes no chain is held, and the ring goes on", LIMIT, async (t) => {
  const { owner, ring, frontEnd, scene } = await byHand(t);
  owner.hold(2);
  const other = scene.memory(1 << 16, 0x4000_0000);
  await frontEnd.shareMemory(other);
  assert.deepEqual(owner.events, ["start", "work"], "a region more changes nothing");
  await frontEnd.request("REM_MEM_REG", {
    guestAddress: BigInt(other.guestAddress),
    size: BigInt(other.byteLength),
    userAddress: frontEnd.negotiated("GPA_ADDRESSES") ? BigInt(other.guestAddress) : other.userAddress,
    mmapOffset: 0n,
  });
  assert.deepEqual(owner.events.slice(2, 4), ["stop", "start"]);
  assert.equal(owner.hold(), 4);
  owner.deliver(1);
  await ring.until(1);
});

test("a ring that the driver breaks is taken from the device, and can be set up anew", LIMIT, async (t) => {
  const { owner, ring, scene } = await byHand(t);
  ring.offer(77);
  assert.equal(owner.hold(2), 2);
  owner.deliver(1);
  assert.equal(owner.hold(), 2, "then comes what is no head");
  await ring.broken();
  assert.deepEqual(owner.events, ["start", "work", "stop"]);
  await ring.until(1);
  await scene.log.problem(/ring 0 is broken.*head 77/);
  assert.equal(await ring.stop(), 1);
  ring.offeredIndex = 4;
  await ring.place(1);
  await ring.setKick();
  await eventually("it runs again", () => owner.queue !== undefined);
  assert.equal(owner.hold(), 3);
});

test("a device that fails at work breaks its ring, and nothing else", LIMIT, async (t) => {
  const owner = new Counter();
  owner.atWork = () => {
    throw new Error("out of luck");
  };
  const { scene, frontEnd, memory } = await stage(t, PACKED, owner);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  await assert.rejects(queue.request([], [buffer(memory.allocate(16))]), /ring 0 broken/);
  await scene.log.problem(/ring 0 is broken.*out of luck/);
  assert.equal(scene.server.sessions, 1);
});

test("a device that asks for it is called again, until it has had enough", LIMIT, async (t) => {
  const owner = new Counter();
  let calls = 0;
  owner.atWork = (queue) => {
    calls++;
    const chain = queue.take();
    if (chain === null) return false;
    queue.complete(chain);
    return true;
  };
  const { frontEnd, memory } = await stage(t, PACKED, owner);
  const queue = await frontEnd.startQueue(0, memory, { size: 16 });
  const room = memory.allocate(16);
  await Promise.all(Array.from({ length: 10 }, () => queue.request([], [buffer(room)])));
  await aWhile();
  assert.ok(calls >= 11 && calls < 40, `called ${calls} times`);
});
