import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { BlkDriver } from "../../src/tools/blk_driver.ts";
import { BlkRequest, type Storage } from "../../src/devices/blk/mod.ts";
import { GatedStorage } from "../session/gated_storage.ts";
import { blk } from "../session/requests.ts";
import { aWhile, eventually, LIMIT, Scene } from "../session/scene.ts";
import { concat, u32, u64 } from "../session/wire.ts";

const FLUSH = 1n << 9n;
const CONFIG_WCE = 1n << 11n;
const WRITEBACK = 32;
const SECTOR = new Uint8Array(512);

/** Notes what it is asked for. */
class NotingStorage implements Storage {
  readonly size = 1 << 20;
  readonly readOnly = false;
  readonly said: string[] = [];
  read(): void {
    this.said.push("read");
  }
  write(): void {
    this.said.push("write");
  }
  flush(): void {
    this.said.push("flush");
  }
  discard(): void {
    this.said.push("discard");
  }
  writeZeroes(): void {
    this.said.push("zero");
  }
  close(): void {}
  /** What it was asked for since the last call. */
  take(): string[] {
    return this.said.splice(0);
  }
}

async function driverWithout(t: TestContext, storage: Storage, withoutFeatures: bigint): Promise<BlkDriver> {
  const scene = await Scene.disk(t, { storage });
  return await scene.driver({ withoutFeatures });
}

async function everything(driver: BlkDriver): Promise<void> {
  await driver.write(0, SECTOR);
  await driver.read(0, 512);
  await driver.writeZeroes(0, 512);
  await driver.discard(0, 4096);
  await driver.flush();
}

const THROUGH = ["write", "flush", "read", "zero", "flush", "discard", "flush"];
const BACK = ["write", "read", "zero", "discard", "flush"];

test("a driver that cannot flush has every write flushed", LIMIT, async (t) => {
  const storage = new NotingStorage();
  await everything(await driverWithout(t, storage, FLUSH | CONFIG_WCE));
  assert.deepEqual(storage.take(), THROUGH);
});

test("a driver that flushes itself has nothing flushed for it", LIMIT, async (t) => {
  const storage = new NotingStorage();
  await everything(await driverWithout(t, storage, CONFIG_WCE));
  assert.deepEqual(storage.take(), BACK);
});

test("a driver that chooses gets what it has chosen, at once", LIMIT, async (t) => {
  const storage = new NotingStorage();
  const driver = await driverWithout(t, storage, 0n);
  await everything(driver);
  assert.deepEqual(storage.take(), BACK, "write-back at the start");
  await driver.frontEnd.writeConfig(WRITEBACK, Uint8Array.of(0));
  await everything(driver);
  assert.deepEqual(storage.take(), THROUGH);
  await driver.frontEnd.writeConfig(WRITEBACK, Uint8Array.of(1));
  await everything(driver);
  assert.deepEqual(storage.take(), BACK);
});

test("a choice that was not negotiated counts for nothing", LIMIT, async (t) => {
  const storage = new NotingStorage();
  const driver = await driverWithout(t, storage, CONFIG_WCE);
  await driver.frontEnd.writeConfig(WRITEBACK, Uint8Array.of(0));
  await everything(driver);
  assert.deepEqual(storage.take(), BACK);
});

test("a write that must be durable is complete after its flush, not before", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const driver = await driverWithout(t, storage, FLUSH | CONFIG_WCE);
  let done = false;
  const write = driver.write(0, SECTOR).then(() => done = true);
  await eventually("the write is with the storage", () => storage.held.length === 1);
  storage.release();
  await eventually("the flush is with the storage", () => storage.held.length === 1);
  assert.equal(storage.held[0].kind, "flush");
  await aWhile();
  assert.equal(done, false);
  storage.release();
  await write;
  assert.deepEqual(storage.done, ["write", "flush"]);
});

test("several ranges of zeros are flushed once, after all of them", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const scene = await Scene.disk(t, { storage });
  const frontEnd = await scene.frontEnd({ deviceFeatures: 1n << 14n });
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  const ranges = concat(u64(0), u32(1, 0), u64(8), u32(1, 0), u64(16), u32(1, 0));
  const answer = blk(queue, memory, BlkRequest.WRITE_ZEROES, 0, { out: ranges });
  await eventually("all ranges are with the storage", () => storage.held.length === 3);
  storage.held.splice(0, 2).forEach((each) => each.finish());
  await aWhile();
  assert.deepEqual(storage.held.map(({ kind }) => kind), ["writeZeroes"], "no flush yet");
  storage.release();
  await eventually("the flush is with the storage", () => storage.held.length === 1);
  storage.release();
  assert.equal((await answer).status, 0);
  assert.deepEqual(storage.done, ["writeZeroes", "writeZeroes", "writeZeroes", "flush"]);
});

test("a write whose flush fails is an I/O error", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const driver = await driverWithout(t, storage, FLUSH | CONFIG_WCE);
  const write = assert.rejects(driver.write(0, SECTOR), /write of 512 bytes at 0: I\/O error \(status 1\)/);
  await eventually("the write is with the storage", () => storage.held.length === 1);
  storage.release();
  await eventually("the flush is with the storage", () => storage.held.length === 1);
  storage.held[0].fail();
  await write;
});
