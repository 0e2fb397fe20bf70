import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { aWhile, eventually, LIMIT } from "../session/scene.ts";
import { Random } from "../support/random.ts";
import { echoDevice } from "./echo.ts";
import { BOTH, Iommu, PAGE, READ } from "./iommu.ts";

/** Sixteen bytes of a value: what the echo of it is. */
const sixteen = (value: number): number[] => new Array(16).fill(value);

test("an acknowledgement before the entry: the ring waits for the entry", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const queue = await iommu.start();
  await iommu.echo(queue, 1);
  let late: Promise<unknown> = Promise.resolve();
  iommu.answer = (iova) => {
    late = sleep(20).then(() => iommu.map(iova, BOTH));
  };
  assert.deepEqual(await iommu.echo(queue, 2), sixteen(2));
  await late;
  assert.deepEqual(scene.log.problems, []);
});

test("an entry that is gone again before the ring has looked is asked for anew", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const queue = await iommu.start();
  await iommu.echo(queue, 1);
  const pages = [0, 1].map(() => iommu.memory.allocate(PAGE, PAGE));
  let rounds = 0;
  // An unmapping of something near takes it along, before the acknowledgement of the question.
  iommu.answer = async (iova) => {
    const sent = [iommu.map(iova, BOTH)];
    if (++rounds <= 10) sent.push(iommu.unmap(iova - PAGE, 2 * PAGE));
    await Promise.all(sent);
  };
  assert.deepEqual(await iommu.echoIn(queue, 2, pages[0], pages[1]), sixteen(2));
  assert.ok(rounds > 10);
  assert.deepEqual(scene.log.problems, []);
});

test("a ring that comes to wait again is not answered by a refusal from before", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const queue = await iommu.start();
  await iommu.echo(queue, 1);
  const [request, answer] = [0, 1].map(() => iommu.memory.allocate(PAGE, PAGE));
  let refuse: () => void = () => {};
  iommu.answer = () => new Promise<void>((_, reject) => refuse = () => reject(new Error("not mapped")));
  const pending = iommu.echoIn(queue, 2, request, answer);
  await eventually("the question", () => iommu.asked(request.guestAddress) === 1);
  // Both at once, so that the ring does not get to look in between.
  const updated = iommu.map(request.guestAddress, BOTH);
  await Promise.all([updated, iommu.unmap(request.guestAddress, PAGE)]);
  await aWhile();
  iommu.answer = iommu.mapped;
  refuse();
  assert.deepEqual(await pending, sixteen(2));
  assert.equal(iommu.asked(request.guestAddress), 2);
  assert.deepEqual(scene.log.problems, []);
});

test("an entry with fewer rights than needed does not end the wait", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const queue = await iommu.start();
  await iommu.echo(queue, 1);
  const [request, answer] = [0, 1].map(() => iommu.memory.allocate(PAGE, PAGE));
  iommu.answer = (iova) => iommu.map(iova, iommu.asked(answer.guestAddress) < 3 ? READ : BOTH);
  assert.deepEqual(await iommu.echoIn(queue, 2, request, answer), sixteen(2));
  assert.equal(iommu.asked(request.guestAddress), 1, "to read, that was enough");
  assert.equal(iommu.asked(answer.guestAddress), 3);
  assert.deepEqual(scene.log.problems, []);
});

test("what is acknowledged and never sent is asked for ever more rarely, and told once", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const queue = await iommu.start();
  await iommu.echo(queue, 1);
  const [request, answer] = [0, 1].map(() => iommu.memory.allocate(PAGE, PAGE));
  iommu.answer = () => {};
  const pending = iommu.echoIn(queue, 2, request, answer);
  await scene.log.problem(/the IOTLB lacks 0x\w+ for reading, but sends no entry; a ring waits for it/);
  assert.ok(iommu.asked(request.guestAddress) <= 8, `${iommu.asked(request.guestAddress)} times`);
  // Another entry is not what it waits for.
  await iommu.map(answer.guestAddress, BOTH);
  await aWhile();
  await iommu.map(request.guestAddress, BOTH);
  assert.deepEqual(await pending, sixteen(2));
  assert.deepEqual(scene.log.problems, []);
});

test("a ring that waits can be stopped, and started again", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const queue = await iommu.start();
  await iommu.echo(queue, 1);
  iommu.answer = () => {};
  const asked = iommu.misses.length;
  const lost = assert.rejects(iommu.echo(queue, 2), /closed/);
  await eventually("the question", () => iommu.misses.length > asked);
  assert.equal(await iommu.frontEnd.stopQueue(queue), 1, "the second request was not taken");
  await lost;
  iommu.answer = iommu.mapped;
  assert.deepEqual(await iommu.echo(await iommu.start(), 3), sixteen(3));
  assert.deepEqual(scene.log.problems, []);
});

test("what is known is forgotten when all rings have stopped", LIMIT, async (t) => {
  const { iommu, scene } = await Iommu.open(t);
  const [request, answer, other] = [0, 1, 2].map(() => iommu.memory.allocate(PAGE, PAGE));
  const queue = await iommu.start();
  assert.deepEqual(await iommu.echoIn(queue, 1, request, answer), sixteen(1));
  await iommu.frontEnd.stopQueue(queue);
  // QEMU tells of no invalidation here. The address now means another page.
  iommu.answer = async (iova) => {
    if (iova === answer.guestAddress) await iommu.map(iova, BOTH, other.guestAddress);
    else await iommu.mapped(iova);
  };
  await iommu.echoIn(await iommu.start(), 2, request, answer);
  assert.deepEqual([answer.bytes[0], other.bytes[0]], [1, 2]);
  assert.deepEqual(scene.log.problems, []);
});

test("an update that contradicts an entry waits for the requests that may use it", LIMIT, async (t) => {
  const gate: { open(): void } = { open: () => {} };
  const device = echoDevice({
    queues: [async (chain) => {
      await new Promise<void>((resolve) => gate.open = resolve);
      chain.write(chain.read());
    }],
  });
  const { iommu } = await Iommu.open(t, device);
  const [request, answer, other] = [0, 1, 2].map(() => iommu.memory.allocate(PAGE, PAGE));
  const pending = iommu.echoIn(await iommu.start(), 1, request, answer);
  await eventually("the request", () => iommu.asked(answer.guestAddress) === 1);
  await aWhile();
  // The same again contradicts nothing.
  await iommu.map(answer.guestAddress, BOTH);
  let changed = false;
  const change = iommu.map(answer.guestAddress, BOTH, other.guestAddress).then(() => changed = true);
  await aWhile();
  assert.equal(changed, false);
  gate.open();
  assert.deepEqual(await pending, sixteen(1));
  await change;
});

test("an invalidation of size 0 is of everything", LIMIT, async (t) => {
  const { iommu } = await Iommu.open(t);
  const queue = await iommu.start();
  const [request, answer] = [0, 1].map(() => iommu.memory.allocate(PAGE, PAGE));
  await iommu.echoIn(queue, 1, request, answer);
  await iommu.unmap(0, 0);
  assert.deepEqual(await iommu.echoIn(queue, 2, request, answer), sixteen(2));
  assert.equal(iommu.asked(request.guestAddress), 2);
});

for (const packed of [false, true]) {
  test(
    `a ${packed ? "packed" : "split"} ring goes on whatever is unmapped and when`,
    { timeout: 30_000 },
    async (t) => {
      const { iommu, scene } = await Iommu.open(t, echoDevice(), packed);
      const { memory } = iommu;
      const random = Random.of(t);
      const queue = await iommu.start();
      const pages = Array.from({ length: 8 }, () => memory.allocate(PAGE, PAGE));
      let done = false;
      const unmapping = (async () => {
        while (!done) {
          const page = random.int(0, 15);
          await iommu.unmap(memory.guestAddress + page * PAGE, random.int(1, 4) * PAGE);
          if (random.int(0, 3) === 0) await sleep(0);
        }
      })();
      // Sometimes QEMU's order, sometimes the acknowledgement first.
      iommu.answer = async (iova) => {
        const update = iommu.map(iova, BOTH);
        if (random.int(0, 1) === 0) await update;
      };
      try {
        for (let i = 0; i < 60; i++) {
          const echoes = [0, 2, 4, 6].map((k) => iommu.echoIn(queue, i + k, pages[k], pages[k + 1]));
          assert.deepEqual(await Promise.all(echoes), [0, 2, 4, 6].map((k) => sixteen(i + k)));
        }
      } finally {
        done = true;
        await unmapping;
      }
      assert.deepEqual(scene.log.problems, []);
    },
  );
}
