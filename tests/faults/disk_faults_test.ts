import assert from "node:assert/strict";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { defineDevice, serve } from "../../mod.ts";
import { BlkDevice, BlkRequest, MemoryStorage } from "../../src/devices/blk/mod.ts";
import { type FaultCount, withFaults } from "../../src/faults/mod.ts";
import type { DriverQueue, FrontEnd, FrontEndOptions, SharedMemory } from "../../src/frontend/mod.ts";
import { IotlbType, mask, ringFeatures } from "../../src/protocol/mod.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { Random } from "../support/random.ts";
import { GatedStorage } from "../session/gated_storage.ts";
import { type Answer, blk } from "../session/requests.ts";
import { aWhile, bytesOf, eventually, LIMIT, Scene, verify } from "../session/scene.ts";

const { IN, OUT, FLUSH } = BlkRequest;

interface BadDisk {
  readonly scene: Scene;
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
  readonly queue: DriverQueue;
  counts(): FaultCount[];
  write(sector: number, out?: Uint8Array): Promise<Answer>;
  read(sector: number): Promise<Answer>;
}

/** A disk with faults, and one ring of it. */
async function badDisk(
  t: TestContext,
  rules: readonly string[],
  options: FrontEndOptions & { workers?: number; queues?: number } = {},
): Promise<BadDisk> {
  const storage = new MemoryStorage(1 << 20);
  const disk = withFaults(new BlkDevice({ storage, shared: true }), rules);
  onEnd(t, () => disk.close());
  const scene = await Scene.open(t, disk, { workers: options.workers });
  const frontEnd = await scene.frontEnd(options);
  const memory = scene.memory(1 << 20);
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 64 });
  return {
    ...{ scene, frontEnd, memory, queue },
    counts: () => disk.faults,
    write: (sector, out = bytesOf(sector, 512)) => blk(queue, memory, OUT, sector, { out }),
    read: (sector) => blk(queue, memory, IN, sector, { in: 512 }),
  };
}

test("error: every third write fails and is not carried out", LIMIT, async (t) => {
  const rule = "blk.write:every=3:error=EIO";
  const { write, read, counts } = await badDisk(t, [rule]);
  const statuses = [];
  for (let sector = 0; sector < 9; sector++) statuses.push((await write(sector)).status);
  assert.deepEqual(statuses, [0, 0, 1, 0, 0, 1, 0, 0, 1]);
  for (let sector = 0; sector < 9; sector++) {
    const { status, data } = await read(sector);
    assert.equal(status, 0);
    const expected = sector % 3 === 2 ? new Uint8Array(512) : bytesOf(sector, 512);
    assert.deepEqual(data, new Uint8Array(expected), `sector ${sector}`);
  }
  assert.deepEqual(counts(), [{ rule, requests: 9, faults: 3 }]);
});

test(
  "selectors: once, after, times, ring, sectors, and the first rule that fires decides",
  LIMIT,
  async (t) => {
    const { frontEnd, memory, queue, write, read } = await badDisk(t, [
      "blk.write:sector=8-9:error=EIO",
      "blk.write:after=2:times=2:error=EOPNOTSUPP",
      "blk.flush:ring=1:once:error=EIO",
    ]);
    const of = async (sectors: readonly number[]): Promise<number[]> => {
      const found = [];
      for (const sector of sectors) found.push((await write(sector)).status);
      return found;
    };
    assert.deepEqual(await of([7, 8, 9, 10, 11, 12, 8, 13]), [0, 1, 1, 0, 2, 2, 1, 0]);
    // Two sectors of which one is in the range.
    const both = await blk(queue, memory, OUT, 7, { out: new Uint8Array(1024) });
    assert.equal(both.status, 1);
    assert.equal((await read(8)).status, 0);
    const other = await frontEnd.startQueue(1, memory, { size: 8 });
    const flushes = [];
    for (const each of [queue, other, other]) flushes.push((await blk(each, memory, FLUSH, 0)).status);
    assert.deepEqual(flushes, [0, 1, 0]);
  },
);

test("probability: as many as it says, and the same ones with the same seed", LIMIT, async (t) => {
  const run = async (seed: number): Promise<string> => {
    const { write } = await badDisk(t, [`blk.write:probability=0.3:seed=${seed}:error=EIO`]);
    let found = "";
    for (let i = 0; i < 200; i++) found += (await write(i)).status;
    return found;
  };
  const [first, again, other] = [await run(1), await run(1), await run(2)];
  assert.equal(first, again);
  assert.notEqual(first, other);
  for (const each of [first, other]) {
    const failed = each.replaceAll("0", "").length;
    assert.ok(failed > 35 && failed < 85, `${failed} of 200 failed, expected about 60`);
  }
});

test("delay: the answer comes later, others pass it", LIMIT, async (t) => {
  const { write, read } = await badDisk(t, ["blk.write:once:delay=60:error=EIO", "blk.read:delay=30"]);
  const start = performance.now();
  const order: string[] = [];
  const slow = write(1).then(({ status }) => order.push(`slow ${status}`));
  const quick = write(2).then(({ status }) => order.push(`quick ${status}`));
  await Promise.all([slow, quick]);
  assert.deepEqual(order, ["quick 0", "slow 1"]);
  assert.ok(performance.now() - start >= 59, "after 60 ms");
  const before = performance.now();
  assert.deepEqual((await read(2)).data, bytesOf(2, 512));
  assert.ok(performance.now() - before >= 29, "after 30 ms");
});

test(
  "drop: never answered while the ring runs; when it stops the driver has it back, failed",
  LIMIT,
  async (t) => {
    const { scene, frontEnd, queue, memory, write } = await badDisk(t, ["blk.write:every=2:drop"]);
    const dropped: number[] = [];
    for (let i = 0; i < 8; i += 2) {
      assert.equal((await write(i)).status, 0);
      void write(i + 1).then(({ status }) => dropped.push(status));
    }
    await aWhile();
    assert.deepEqual(dropped, []);
    await frontEnd.stopQueue(queue);
    await eventually("they come back", () => dropped.length === 4);
    assert.deepEqual(dropped, [1, 1, 1, 1]);
    assert.deepEqual(scene.log.problems, []);
    // The next driver begins anew.
    const next = await frontEnd.startQueue(0, memory, { size: 64 });
    const { status, data } = await blk(next, memory, IN, 1, { in: 512 });
    assert.equal(status, 0);
    assert.deepEqual(data, new Uint8Array(512), "it was not carried out");
  },
);

test("a server with requests that are dropped, delayed or stand still closes at once", LIMIT, async (t) => {
  const { scene, write } = await badDisk(t, [
    "blk.write:sector=0:drop",
    "blk.write:sector=1:delay=3600000",
    "blk.write:sector=2:reorder=9:delay=3600000",
    "blk.write:sector=3:stall",
  ]);
  for (let i = 0; i < 5; i++) void write(i).catch(() => {});
  await aWhile();
  const start = performance.now();
  scene.server.close();
  await scene.server.finished;
  assert.ok(performance.now() - start < 20_000);
});

test("stall: the ring stands still from one request on, other rings do not", LIMIT, async (t) => {
  const { frontEnd, memory, queue, write, counts } = await badDisk(t, [
    "blk.write:ring=0:after=1:once:stall=80",
  ]);
  assert.equal((await write(0)).status, 0);
  const start = performance.now();
  const order: number[] = [];
  const stalled = [1, 2, 3].map((sector) => write(sector).then(() => order.push(sector)));
  const flushed = blk(queue, memory, FLUSH, 0);
  const other = await frontEnd.startQueue(1, memory, { size: 8 });
  assert.equal((await blk(other, memory, FLUSH, 0)).status, 0);
  assert.ok(performance.now() - start < 79 || order.length > 0, "the other ring went on");
  await Promise.all([...stalled, flushed]);
  assert.ok(performance.now() - start >= 79);
  assert.deepEqual(order, [1, 2, 3]);
  assert.equal(counts()[0].faults, 1);
});

test("stall for ever: when the ring stops, what stood still is carried out", LIMIT, async (t) => {
  const { frontEnd, memory, queue, write, scene } = await badDisk(t, ["blk.write:stall"]);
  const answers: number[] = [];
  for (const sector of [1, 2]) void write(sector).then(({ status }) => answers.push(status));
  await aWhile();
  assert.deepEqual(answers, []);
  await frontEnd.stopQueue(queue);
  await eventually("both come back", () => answers.length === 2);
  assert.deepEqual(answers, [0, 0]);
  assert.deepEqual(scene.log.problems, []);
  const next = await frontEnd.startQueue(0, memory, { size: 64 });
  const { data } = await blk(next, memory, IN, 2, { in: 512 });
  assert.deepEqual(data, bytesOf(2, 512));
});

test("reorder: answers in the opposite order; one alone does not wait for ever", LIMIT, async (t) => {
  const { write } = await badDisk(t, ["blk.write:reorder=3"]);
  const order: number[] = [];
  await Promise.all([0, 1, 2, 3, 4, 5, 6].map((sector) => write(sector).then(() => order.push(sector))));
  assert.deepEqual(order, [2, 1, 0, 5, 4, 3, 6]);
});

test("corrupt: so many bits of what is read are wrong, and the status is right", LIMIT, async (t) => {
  const { write, read } = await badDisk(t, ["blk.read:sector=5:corrupt", "blk.read:sector=6:corrupt=20"]);
  for (const sector of [4, 5, 6]) await write(sector);
  const wrong = async (sector: number): Promise<number> => {
    const { status, data } = await read(sector);
    assert.equal(status, 0);
    const right = bytesOf(sector, 512);
    let bits = 0;
    data.forEach((byte, i) => {
      for (let difference = byte ^ right[i]; difference !== 0; difference &= difference - 1) bits++;
    });
    return bits;
  };
  assert.equal(await wrong(4), 0);
  assert.equal(await wrong(5), 1);
  // A bit may be hit twice.
  const many = await wrong(6);
  assert.ok(many > 10 && many <= 20, `${many} bits`);
});

test("lose: a write that is answered as if it had been carried out", LIMIT, async (t) => {
  const { write, read } = await badDisk(t, ["blk.write:sector=1:lose"]);
  for (const sector of [0, 1]) assert.equal((await write(sector)).status, 0);
  assert.deepEqual((await read(0)).data, bytesOf(0, 512));
  assert.deepEqual((await read(1)).data, new Uint8Array(512));
});

test("short: the driver is told of fewer bytes", LIMIT, async (t) => {
  const { read } = await badDisk(t, ["blk.read:once:short=100"]);
  assert.deepEqual([(await read(0)).written, (await read(0)).written], [100, 513]);
});

test("a storage that answers later: faults wait for it", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const disk = withFaults(new BlkDevice({ storage, shared: true }), ["blk.read:corrupt:delay=5"]);
  onEnd(t, () => disk.close());
  const scene = await Scene.open(t, disk);
  const frontEnd = await scene.frontEnd();
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  const answers: number[] = [];
  const asked = blk(queue, memory, IN, 0, { in: 512 }).then(({ status }) => answers.push(status));
  await eventually("it is with the storage", () => storage.held.length === 1);
  await aWhile();
  assert.deepEqual(answers, []);
  storage.held.shift()?.finish();
  await asked;
  assert.deepEqual(answers, [0]);
});

for (const packed of [false, true]) {
  test(`faults in ${packed ? "packed" : "split"} rings; what passes is right`, LIMIT, async (t) => {
    const { scene } = await badDisk(t, ["blk:probability=0.3:reorder=4", "blk:every=7:delay=2"]);
    const driver = await scene.driver({ withoutFeatures: packed ? 0n : mask(ringFeatures.RING_PACKED) });
    for (let i = 0; i < 5; i++) await verify(driver, i);
  });
}

test("in worker threads the rules count together", { timeout: 60_000 }, async (t) => {
  const storage = new MemoryStorage(1 << 20);
  const rule = "blk.write:every=4:error=EIO:delay=30";
  const disk = withFaults(new BlkDevice({ storage, shared: true }), [rule]);
  onEnd(t, () => disk.close());
  const scene = await Scene.open(t, disk, { workers: 2 });
  const frontEnd = await scene.frontEnd();
  const memory = scene.memory(1 << 18);
  await frontEnd.shareMemory(memory);
  const queues: DriverQueue[] = [];
  for (const index of [0, 1]) queues.push(await frontEnd.startQueue(index, memory, { size: 8 }));
  const statuses = [];
  const start = performance.now();
  for (let i = 0; i < 8; i++) {
    statuses.push((await blk(queues[i & 1], memory, OUT, i, { out: bytesOf(i, 512) })).status);
  }
  assert.deepEqual(statuses, [0, 0, 0, 1, 0, 0, 0, 1]);
  assert.ok(performance.now() - start >= 58);
  assert.deepEqual(disk.faults, [{ rule, requests: 8, faults: 2 }]);
});

test("an entry of the IOTLB goes although requests were dropped", LIMIT, async (t) => {
  const disk = withFaults(new BlkDevice({ storage: new MemoryStorage(1 << 20) }), ["blk:drop"]);
  onEnd(t, () => disk.close());
  const scene = await Scene.open(t, disk, { iommu: true });
  const frontEnd = await scene.frontEnd({ deviceFeatures: mask(ringFeatures.ACCESS_PLATFORM) });
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  const { byteLength, userAddress, guestAddress } = memory;
  for (const iova of [userAddress, BigInt(guestAddress)]) {
    const entry = { iova, size: BigInt(byteLength), userAddress, permission: 3, type: IotlbType.UPDATE };
    await frontEnd.request("IOTLB_MSG", entry);
  }
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  const answers: number[] = [];
  void blk(queue, memory, FLUSH, 0).then(({ status }) => answers.push(status));
  await aWhile();
  assert.deepEqual(answers, []);
  // Another address of the same memory, which the driver does not use.
  const entry = { iova: userAddress, size: 4096n, userAddress: userAddress + 4096n, permission: 3 };
  await frontEnd.request("IOTLB_MSG", { ...entry, iova: 0x9000_0000n, type: IotlbType.UPDATE });
  await frontEnd.request("IOTLB_MSG", { ...entry, iova: 0x9000_0000n, type: IotlbType.INVALIDATE });
  await eventually("the request has come back", () => answers.length === 1);
  assert.deepEqual(answers, [1]);
});

test("what cannot run in threads is refused with faults as it is without", LIMIT, async (t) => {
  const device = withFaults(defineDevice({ type: 63, queues: [() => {}] }), ["device:drop"]);
  await assert.rejects(
    serve(device, { socketPath: join(tempDir(t), "socket"), workers: 1 }),
    /virtio device 63: this device cannot run in worker threads: its definition does not say how/,
  );
});

test(
  "whatever the rules: when the ring stops, every request has come back once",
  { timeout: 60_000 },
  async (t) => {
    const random = Random.of(t);
    const whats = ["blk", "blk.write", "blk.read", "blk.flush"];
    const selectors = ["", ":every=3", ":probability=0.4", ":after=5", ":times=2", ":sector=4-20"];
    const actions = [
      "drop",
      "stall",
      "stall=5",
      "delay=3",
      "delay=3600000",
      "reorder",
      "reorder=5",
      "error=EIO",
      "lose",
    ];
    for (let round = 0; round < 25; round++) {
      const rules = Array.from(
        { length: random.int(1, 4) },
        () => `${random.pick(whats)}${random.pick(selectors)}:${random.pick(actions)}`,
      );
      // The first rule only counts what the device has taken.
      const { scene, frontEnd, memory, queue, counts } = await badDisk(t, [
        "blk:probability=0:drop",
        ...rules,
      ], {
        withoutFeatures: random.pick([0n, mask(ringFeatures.RING_PACKED)]),
      });
      const wanted = 20; // Fewer than there is room for.
      let [back, untaken] = [0, 0];
      for (let n = 0; n < wanted; n++) {
        const type = random.pick([IN, OUT, FLUSH]);
        const data = type === IN ? { in: 512 } : type === OUT ? { out: bytesOf(n, 512) } : {};
        void blk(queue, memory, type, type === FLUSH ? 0 : n, data).then(({ status }) => {
          assert.ok(status === 0 || status === 1, `status ${status}`);
          back++;
        }, () => untaken++);
        if (random.int(0, 10) === 0) await aWhile();
      }
      // While it stands still it does not tell what it has.
      const stalls = rules.some((rule) => rule.includes("stall"));
      if (stalls) await aWhile();
      else await eventually("all are taken", () => counts()[0].requests === wanted);
      await frontEnd.stopQueue(queue);
      await eventually(`${rules}: ${back} of ${wanted} requests are back`, () => back + untaken === wanted);
      assert.ok(untaken === 0 || stalls, `${rules}: ${untaken} requests have not come back`);
      assert.deepEqual(scene.log.problems, [], String(rules));
      scene.server.close();
      await scene.server.finished;
    }
  },
);
