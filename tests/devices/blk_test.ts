import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  BlkDevice,
  type Completion,
  FileStorage,
  MemoryStorage,
  NullStorage,
  type Storage,
} from "../../src/devices/blk/mod.ts";
import { LATER } from "../../src/backend/device.ts";
import type { BlkDriverOptions } from "../../src/tools/blk_driver.ts";
import { Random } from "../support/random.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { GatedStorage } from "../session/gated_storage.ts";
import { LIMIT, sameBytes, Scene } from "../session/scene.ts";
import { randomIo } from "./random_io.ts";

const MIB = 1 << 20;

for (
  const [how, options] of [
    ["one queue", {}],
    ["four queues", { numQueues: 4 }],
    ["small queues", { numQueues: 2, queueSize: 4 }],
    ["indirect tables", { indirect: true, queueSize: 64 }],
    ["no EVENT_IDX", { withoutFeatures: 1n << 29n }],
    ["no features of the device", { deviceFeatures: 1n << 14n }],
    ["a whole memory table", { withoutProtocolFeatures: 1n << 15n }],
  ] as readonly (readonly [string, BlkDriverOptions])[]
) {
  test(`random I/O at depth 64 on a disk in memory, with ${how}`, LIMIT, async (t) => {
    const scene = await Scene.disk(t, { storage: new MemoryStorage(2 * MIB) });
    const driver = await scene.driver({ depth: 64, maxTransfer: 8192, ...options });
    await randomIo(driver, { rounds: 8, seed: 1 });
    assert.deepEqual(scene.log.problems, []);
  });
}

for (const aio of ["io_uring", "sync"] as const) {
  for (const direct of [false, true]) {
    test(`random I/O at depth 64 on a file, ${aio}${direct ? ", O_DIRECT" : ""}`, LIMIT, async (t) => {
      const path = join(tempDir(t), "disk");
      writeFileSync(path, new Random(5).bytes(2 * MIB));
      const scene = await Scene.disk(t, { storage: new FileStorage(path, { aio, direct }) });
      // Segments of one sector: some are not aligned as O_DIRECT needs it on some file systems.
      const driver = await scene.driver({ depth: 64, maxTransfer: 8192, numQueues: 2 });
      const copy = await randomIo(driver, { rounds: 8, seed: 2 });
      sameBytes(new Uint8Array(readFileSync(path)), copy);
      assert.deepEqual(scene.log.problems, []);
    });
  }
}

test(
  "a storage that says LATER may be done at once, or after the request of another, or fail",
  LIMIT,
  async (t) => {
    const inner = new MemoryStorage(2 * MIB);
    const random = new Random(12);
    let broken = false;
    const held: (() => void)[] = [];
    const later = (act: () => void, completion: Completion): typeof LATER => {
      const finish = (): void => {
        if (broken) return completion.done(new Error("broken"));
        act();
        completion.done();
      };
      if (random.int(0, 3) === 0) finish();
      else {
        held.splice(random.int(0, held.length), 0, finish);
        setTimeout(() => held.splice(0).forEach((each) => each()), random.int(0, 2));
      }
      return LATER;
    };
    const storage: Storage = {
      size: inner.size,
      readOnly: false,
      read: (data, position, completion) => later(() => inner.read(data, position), completion),
      write: (data, position, completion) => later(() => inner.write(data, position), completion),
      flush: (completion) => later(() => {}, completion),
      writeZeroes: (position, length, unmap) => inner.writeZeroes(position, length, unmap),
      close: () => inner.close(),
    };
    const scene = await Scene.disk(t, { storage });
    const driver = await scene.driver({ depth: 64, maxTransfer: 8192, numQueues: 3 });
    await randomIo(driver, { rounds: 8, seed: 3 });
    broken = true;
    await assert.rejects(driver.read(0, 512), /I\/O error/);
    await assert.rejects(driver.write(0, new Uint8Array(512)), /I\/O error/);
    await assert.rejects(driver.flush(), /I\/O error/);
    broken = false;
    await driver.flush();
  },
);

test("random I/O on a storage that takes its time and answers in any order", LIMIT, async (t) => {
  const inner = new MemoryStorage(2 * MIB);
  const random = new Random(11);
  const later = <T>(act: () => T): Promise<T> =>
    new Promise((resolve) => setTimeout(() => resolve(act()), random.int(0, 4)));
  const storage: Storage = {
    size: inner.size,
    readOnly: false,
    read: (data, position) => later(() => inner.read(data, position)),
    // Some at once, some later.
    write: (data, position) =>
      random.int(0, 1) === 0 ? inner.write(data, position) : later(() => inner.write(data, position)),
    flush: () => later(() => {}),
    writeZeroes: (position, length, unmap) => later(() => inner.writeZeroes(position, length, unmap)),
    close: () => inner.close(),
  };
  const scene = await Scene.disk(t, { storage });
  const driver = await scene.driver({ depth: 64, maxTransfer: 8192, numQueues: 3 });
  await randomIo(driver, { rounds: 8, seed: 3 });
});

test("several front-ends at once, each on its own disk, in one process", LIMIT, async (t) => {
  const scenes = await Promise.all([1, 2, 3].map(() => Scene.disk(t)));
  await Promise.all(scenes.map(async (scene, seed) => {
    await randomIo(await scene.driver({ depth: 64 }), { rounds: 4, seed, largest: 4096 });
  }));
});

test("a storage that fails gives I/O errors, at once or later, and the disk goes on", LIMIT, async (t) => {
  const storage = new GatedStorage();
  storage.open = true;
  const scene = await Scene.disk(t, { storage });
  const driver = await scene.driver();
  await driver.write(0, new Uint8Array(512).fill(1));
  storage.broken = true;
  await assert.rejects(driver.read(0, 512), /read of 512 bytes at 0: I\/O error \(status 1\)/);
  await assert.rejects(driver.write(0, new Uint8Array(512)), /I\/O error/);
  await assert.rejects(driver.flush(), /I\/O error/);
  await assert.rejects(driver.discard(0, 4096), /I\/O error/);
  await assert.rejects(driver.writeZeroes(0, 512), /I\/O error/);
  storage.broken = false;
  sameBytes(await driver.read(0, 512), new Uint8Array(512).fill(1));
});

test("a storage that throws at once gives I/O errors", LIMIT, async (t) => {
  const fail = (): never => {
    throw new Error("no such thing");
  };
  const storage: Storage = {
    size: MIB,
    readOnly: false,
    read: fail,
    write: fail,
    flush: fail,
    discard: fail,
    writeZeroes: fail,
    close: () => {},
  };
  const driver = await (await Scene.disk(t, { storage })).driver();
  for (
    const request of [
      () => driver.read(0, 512),
      () => driver.write(0, new Uint8Array(512)),
      () => driver.flush(),
      () => driver.discard(0, 4096),
      () => driver.writeZeroes(0, 512),
    ]
  ) await assert.rejects(request(), /I\/O error \(status 1\)/);
  assert.equal(await driver.id(), "vhost-user");
});

test("a disk that does nothing leaves the guest's memory as it is", LIMIT, async (t) => {
  const scene = await Scene.disk(t, { storage: new NullStorage(2 ** 50) });
  const driver = await scene.driver({ depth: 1 });
  assert.equal(driver.size, 2 ** 50);
  await driver.write(2 ** 50 - 512, new Uint8Array(512).fill(9));
  assert.deepEqual(
    await driver.read(0, 512),
    new Uint8Array(512).fill(9),
    "the one buffer is still as it was",
  );
  await driver.flush();
  await driver.discard(2 ** 49, 4096);
  await assert.rejects(driver.read(2 ** 50, 512), /I\/O error/);
});

test("the driver sees what kind of disk it is", LIMIT, async (t) => {
  const scene = await Scene.disk(t, { numQueues: 3, blockSize: 4096, id: "serial" });
  const driver = await scene.driver({ numQueues: 3 });
  const { config } = driver;
  assert.deepEqual(
    [config.capacity, config.blkSize, config.numQueues, config.writeback, config.physicalBlockExp],
    [2048n, 4096, 3, 1, 0],
  );
  assert.equal(await driver.id(), "serial");
});

test("a disk cannot be made of nonsense", (t) => {
  const storage = new NullStorage(MIB);
  onEnd(t, () => storage.close());
  for (
    const [options, said] of [
      [{ numQueues: 0 }, /numQueues must be 1 to 256, got 0/],
      [{ numQueues: 257 }, /numQueues must be 1 to 256, got 257/],
      [{ numQueues: 1.5 }, /numQueues must be 1 to 256, got 1.5/],
      [{ blockSize: 256 }, /blockSize must be 512, 1024, 2048 or 4096, got 256/],
      [{ blockSize: 8192 }, /blockSize must be/],
      [{ id: "x".repeat(21) }, /id must have at most 20 ASCII characters/],
      [{ id: "ü" }, /id must have at most 20 ASCII characters/],
      [{ storage: new NullStorage(1000) }, /storage size must be a multiple of 512 bytes, got 1000/],
      [{ storage: new NullStorage(NaN) }, /storage size must be/],
    ] as const
  ) assert.throws(() => new BlkDevice({ storage, ...options }), said);
});
