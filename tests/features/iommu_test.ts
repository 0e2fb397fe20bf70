import assert from "node:assert/strict";
import { test } from "node:test";
import type { DriverQueue, FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { type Iotlb, IotlbType, mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { aWhile, eventually, LIMIT, Scene } from "../session/scene.ts";
import type { Scope } from "../support/cleanup.ts";
import { echoDevice } from "./echo.ts";

const PAGE = 4096;
const BOTH = 3;
const READ = 1;

/** A front-end whose IOMMU maps pages one to one, on demand, as far as it is told to. */
class Iommu {
  frontEnd!: FrontEnd;
  memory!: SharedMemory;
  /** Questions that came. */
  readonly misses: Iotlb[] = [];
  readonly failures: Iotlb[] = [];
  /** Whether to answer them. */
  answering = true;

  /** Serves an echo and negotiates. */
  static async open(scope: Scope): Promise<{ iommu: Iommu; scene: Scene }> {
    const iommu = new Iommu();
    const scene = await Scene.open(scope, echoDevice(), { iommu: true });
    iommu.frontEnd = await scene.frontEnd({
      deviceFeatures: mask(ringFeatures.ACCESS_PLATFORM),
      channel: { IOTLB_MSG: (message) => iommu.#asked(message) },
    });
    iommu.memory = scene.memory(1 << 18);
    await iommu.frontEnd.shareMemory(iommu.memory);
    return { iommu, scene };
  }

  async #asked(message: Iotlb): Promise<void> {
    if (message.type === IotlbType.ACCESS_FAIL) return void this.failures.push(message);
    this.misses.push(message);
    const inside = Number(message.iova) >= this.memory.guestAddress &&
      Number(message.iova) < this.memory.guestAddress + this.memory.byteLength;
    if (this.answering && inside) await this.map(Number(message.iova), BOTH);
  }

  /** Maps the page of an address. */
  async map(iova: number, permission: number): Promise<void> {
    const page = Math.floor(iova / PAGE) * PAGE;
    await this.frontEnd.request("IOTLB_MSG", {
      iova: BigInt(page),
      size: BigInt(PAGE),
      userAddress: this.memory.userAddress + BigInt(page - this.memory.guestAddress),
      permission,
      type: IotlbType.UPDATE,
    });
  }

  /** Takes a range away. */
  async unmap(iova: number, size: number): Promise<void> {
    const none = { userAddress: 0n, permission: 0, type: IotlbType.INVALIDATE };
    await this.frontEnd.request("IOTLB_MSG", { iova: BigInt(iova), size: BigInt(size), ...none });
  }

  /** Starts a ring on pages of its own. */
  async start(): Promise<DriverQueue> {
    return await this.frontEnd.startQueue(0, this.memory, { size: 8 });
  }

  /** Sends bytes and returns the echo. Each buffer has a page of its own. */
  async echo(queue: DriverQueue, value: number): Promise<number[]> {
    const request = this.memory.allocate(PAGE, PAGE);
    const answer = this.memory.allocate(PAGE, PAGE);
    request.bytes.fill(value);
    const written = await queue.request(
      [{ guestAddress: request.guestAddress, length: 16 }],
      [{ guestAddress: answer.guestAddress, length: 16 }],
    );
    assert.equal(written, 16);
    return [...answer.bytes.subarray(0, 16)];
  }
}

test("what the IOTLB lacks is asked for, once, and then used", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const queue = await iommu.start();
  assert.deepEqual(await iommu.echo(queue, 5), new Array(16).fill(5));
  const asked = iommu.misses.length;
  assert.ok(asked >= 3, `ring, request and answer were asked for, in ${asked} questions`);
  assert.deepEqual(await iommu.echo(queue, 6), new Array(16).fill(6));
  // Two more pages of buffers; the ring's are known.
  assert.equal(iommu.misses.length, asked + 2);
  assert.deepEqual(scene.log.problems, []);
});

test("a ring that waits for an entry does not hold up the session or other sessions", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const queue = await iommu.start();
  await iommu.echo(queue, 1);
  iommu.answering = false;
  const pending = iommu.echo(queue, 2);
  const asked = iommu.misses.length;
  await eventually("the question", () => iommu.misses.length > asked);
  assert.equal((await iommu.frontEnd.request("GET_QUEUE_NUM", undefined)).value, 1n);
  iommu.answering = true;
  await iommu.map(Number(iommu.misses[asked].iova), BOTH);
  assert.deepEqual(await pending, new Array(16).fill(2));
  assert.deepEqual(scene.log.problems, []);
});

test("an entry that was invalidated is asked for again, also the ring's own", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const queue = await iommu.start();
  await iommu.echo(queue, 1);
  const asked = iommu.misses.length;
  await iommu.unmap(iommu.memory.guestAddress, iommu.memory.byteLength);
  assert.deepEqual(await iommu.echo(queue, 2), new Array(16).fill(2));
  assert.ok(iommu.misses.length >= asked + 3);
  assert.deepEqual(scene.log.problems, []);
});

test("an address that the IOMMU does not know breaks the ring and nothing else", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const queue = await iommu.start();
  await iommu.echo(queue, 1);
  const lost = queue.request([{ guestAddress: 0x7000_0000, length: 16 }], []);
  await assert.rejects(lost, /broken/);
  await scene.log.problem(/IOMMU maps nothing at 0x70000000/);
  assert.equal((await iommu.frontEnd.request("GET_QUEUE_NUM", undefined)).value, 1n);
});

test("writing where only reading is allowed is reported as an access failure", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const queue = await iommu.start();
  await iommu.echo(queue, 1);
  const request = iommu.memory.allocate(PAGE, PAGE);
  const answer = iommu.memory.allocate(PAGE, PAGE);
  await iommu.map(request.guestAddress, READ);
  await iommu.map(answer.guestAddress, READ);
  iommu.answering = false;
  const lost = queue.request(
    [{ guestAddress: request.guestAddress, length: 4 }],
    [{ guestAddress: answer.guestAddress, length: 4 }],
  );
  await assert.rejects(lost, /broken/);
  await scene.log.problem(/does not allow writing/);
  assert.deepEqual(iommu.failures.map(({ iova }) => Number(iova)), [answer.guestAddress]);
  assert.equal(answer.bytes[0], 0);
});

test("an invalidation is answered only when requests on the range have completed", LIMIT, async (t) => {
  const gate: { open(): void } = { open: () => {} };
  const device = echoDevice({
    queues: [async (chain) => {
      await new Promise<void>((resolve) => gate.open = resolve);
      chain.write(chain.read());
    }],
  });
  const iommu = new Iommu();
  const scene = await Scene.open(t, device, { iommu: true });
  iommu.frontEnd = await scene.frontEnd({ deviceFeatures: mask(ringFeatures.ACCESS_PLATFORM) });
  iommu.memory = scene.memory(1 << 18);
  await iommu.frontEnd.shareMemory(iommu.memory);
  for (let at = 0; at < iommu.memory.byteLength; at += PAGE) {
    await iommu.map(iommu.memory.guestAddress + at, BOTH);
  }
  const queue = await iommu.start();
  const pending = iommu.echo(queue, 9);
  await aWhile();
  let answered = false;
  const unmapped = iommu.unmap(iommu.memory.guestAddress + iommu.memory.byteLength - PAGE, PAGE)
    .then(() => answered = true);
  await aWhile();
  assert.equal(answered, false);
  gate.open();
  assert.deepEqual(await pending, new Array(16).fill(9));
  await unmapped;
});

test("entries that wrap or have no size are refused", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const entry = { iova: 0n, size: 0n, userAddress: 0n, permission: BOTH, type: IotlbType.UPDATE };
  await assert.rejects(iommu.frontEnd.request("IOTLB_MSG", entry), /failure/);
  await scene.log.problem(/IOTLB_MSG: size must be more than 0/);
  const wrap = { ...entry, iova: 0xffff_ffff_ffff_f000n, size: 0x2000n };
  await assert.rejects(iommu.frontEnd.request("IOTLB_MSG", wrap), /failure/);
  await scene.log.problem(/IOTLB_MSG: iova/);
});

test("with GPA_ADDRESSES, ring addresses are the guest's", LIMIT, async (t) => {
  const scene = await Scene.open(t, echoDevice());
  const frontEnd = await scene.frontEnd({ protocolFeatures: mask(protocolFeatures.GPA_ADDRESSES) });
  assert.ok(frontEnd.negotiated("GPA_ADDRESSES"));
  const memory = scene.memory(1 << 16);
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 4 });
  const piece = memory.allocate(8);
  piece.bytes.fill(3, 0, 4);
  const { guestAddress } = piece;
  await queue.request([{ guestAddress, length: 4 }], [{ guestAddress: guestAddress + 4, length: 4 }]);
  assert.deepEqual([...piece.bytes], new Array(8).fill(3));
});
