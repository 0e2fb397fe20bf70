import assert from "node:assert/strict";
import { test } from "node:test";
import { IotlbType, mask, protocolFeatures } from "../../src/protocol/mod.ts";
import { aWhile, eventually, LIMIT, Scene } from "../session/scene.ts";
import { echoDevice } from "./echo.ts";
import { BOTH, Iommu, PAGE, READ } from "./iommu.ts";

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
  const asked = iommu.misses.length;
  iommu.answer = () => {};
  const pending = iommu.echo(queue, 2);
  await eventually("the question", () => iommu.misses.length > asked);
  assert.equal((await iommu.frontEnd.request("GET_QUEUE_NUM", undefined)).value, 1n);
  iommu.answer = iommu.mapped;
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
  iommu.answer = iommu.refused;
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
  const { iommu } = await Iommu.open(t, device);
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

test("entries that wrap, have no size or unknown rights are refused", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const entry = { iova: 0n, size: 0x1000n, userAddress: 0n, permission: BOTH, type: IotlbType.UPDATE };
  for (
    const [wrong, complaint] of [
      [{ size: 0n }, /IOTLB_MSG: size must be more than 0/],
      [{ iova: 1n << 53n }, /IOTLB_MSG: iova must be below 2\^53/],
      [{ iova: 0xffff_ffff_ffff_f000n, size: 0x2000n }, /IOTLB_MSG: iova must be such that/],
      [{ userAddress: 0xffff_ffff_ffff_f000n, size: 0x1001n }, /IOTLB_MSG: user address must be such that/],
      [{ permission: 4 }, /IOTLB_MSG: permission must be 0 or 1 or 2 or 3/],
      [{ type: 4 }, /IOTLB_MSG: type must be 2/],
    ] as const
  ) {
    await assert.rejects(iommu.frontEnd.request("IOTLB_MSG", { ...entry, ...wrong }), /failure/);
    await scene.log.problem(complaint);
  }
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
