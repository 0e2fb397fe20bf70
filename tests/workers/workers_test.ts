import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { defineDevice, serve } from "../../mod.ts";
import { BlkDevice, MemoryStorage, NullStorage } from "../../src/devices/blk/mod.ts";
import type { DriverQueue, FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { noteDescriptors } from "../session/descriptors.ts";
import { GatedStorage } from "../session/gated_storage.ts";
import { buffer } from "../session/requests.ts";
import { eventually, Scene, verify } from "../session/scene.ts";

const LIMIT = { timeout: 30_000 };
const module = (name: string): URL => new URL(`./devices/${name}.ts`, import.meta.url);

/** The threads of this process. */
const threads = (): number => readdirSync("/proc/self/task").length;

/** Waits until the threads of earlier tests have ended. */
async function quiet(): Promise<void> {
  for (let before = NaN, still = 0; still < 5; await sleep(100)) {
    const now = threads();
    still = now === before ? still + 1 : 0;
    before = now;
  }
}

/** A front-end with memory. */
async function guest(scene: Scene): Promise<{ frontEnd: FrontEnd; memory: SharedMemory }> {
  const frontEnd = await scene.frontEnd();
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  return { frontEnd, memory };
}

/** What a ring answers to a request without contents. */
async function ask(queue: DriverQueue, memory: SharedMemory): Promise<number[]> {
  const room = memory.allocate(2);
  const written = await queue.request([], [buffer(room)]);
  return [...room.bytes.subarray(0, written)];
}

test(
  "a module's device runs in threads: ring after ring to the next, each with a device of its own",
  LIMIT,
  async (t) => {
    const scene = await Scene.open(t, module("counter"), { workers: 2, deviceOptions: { first: 7 } });
    const { frontEnd, memory } = await guest(scene);
    const queues: DriverQueue[] = [];
    for (const index of [0, 1, 2]) queues.push(await frontEnd.startQueue(index, memory, { size: 8 }));
    const numbers = [];
    for (const queue of [...queues, ...queues]) numbers.push((await ask(queue, memory))[0]);
    // Rings 0 and 2 are in one thread, ring 1 in the other.
    assert.deepEqual(numbers, [7, 7, 8, 9, 8, 10]);
    assert.deepEqual(scene.log.problems, []);
  },
);

test("without workers the same module's device runs in this thread", LIMIT, async (t) => {
  const scene = await Scene.open(t, module("counter"), { deviceOptions: { first: 1 } });
  const { frontEnd, memory } = await guest(scene);
  const queues: DriverQueue[] = [];
  for (const index of [0, 1]) queues.push(await frontEnd.startQueue(index, memory, { size: 8 }));
  assert.deepEqual([await ask(queues[0], memory), await ask(queues[1], memory)], [[1, 0], [2, 0]]);
});

test(
  "what is written to the configuration space is known in every thread before the answer",
  LIMIT,
  async (t) => {
    const scene = await Scene.open(t, module("counter"), { workers: 3, deviceOptions: { first: 0 } });
    const { frontEnd, memory } = await guest(scene);
    const queues: DriverQueue[] = [];
    for (const index of [0, 1, 2]) queues.push(await frontEnd.startQueue(index, memory, { size: 8 }));
    for (let value = 1; value < 20; value++) {
      await frontEnd.writeConfig(0, Uint8Array.of(value));
      const answers = await Promise.all(queues.map((queue) => ask(queue, memory)));
      assert.deepEqual(answers.map(([, config]) => config), [value, value, value]);
      assert.equal((await frontEnd.readConfig(0, 1))[0], value);
    }
  },
);

test("rings that belong together are in one thread", LIMIT, async (t) => {
  const scene = await Scene.open(t, module("pair"), { workers: 2 });
  const { frontEnd, memory } = await guest(scene);
  const queues: DriverQueue[] = [];
  for (const index of [0, 1, 2, 3]) queues.push(await frontEnd.startQueue(index, memory, { size: 8 }));
  for (const at of [0, 2]) {
    const [room, question] = [memory.allocate(8), memory.allocate(8)];
    question.bytes.set([1, 2, 3, at]);
    const answered = queues[at].request([], [buffer(room)]);
    await queues[at + 1].request([buffer(question)], []);
    assert.equal(await answered, 8);
    assert.deepEqual([...room.bytes], [...question.bytes]);
  }
  assert.deepEqual(scene.log.problems, []);
});

test("an error that nobody catches breaks the rings of its thread, and nothing else", LIMIT, async (t) => {
  const options = { first: 0, fail: 3 };
  const scene = await Scene.open(t, module("counter"), { workers: 2, deviceOptions: options });
  const { frontEnd, memory } = await guest(scene);
  const queues: DriverQueue[] = [];
  for (const index of [0, 1]) queues.push(await frontEnd.startQueue(index, memory, { size: 8 }));
  for (let n = 0; n < 2; n++) await ask(queues[0], memory);
  await ask(queues[0], memory).catch(() => {});
  await scene.log.problem(/^error: counter: ring 0 is broken and stands still: nobody catches this/);
  await assert.rejects(ask(queues[0], memory), /the device found ring 0 broken/);
  assert.deepEqual(await ask(queues[1], memory), [0, 0], "the other thread goes on");
  // Set up anew, it runs again, and so does a session after this one.
  await frontEnd.request("RESET_DEVICE", undefined);
  frontEnd.close();
  const next = await guest(scene);
  assert.deepEqual(await ask(await next.frontEnd.startQueue(0, next.memory, { size: 8 }), next.memory), [
    3,
    0,
  ]);
});

test("a server leaves no thread and no descriptor behind", LIMIT, async () => {
  const begin = async (): Promise<void> => {
    const disk = new BlkDevice({ storage: new MemoryStorage(1 << 20) });
    const ends: (() => void | Promise<void>)[] = [];
    const scope: Scope = { after: (end) => void ends.push(end) };
    const scene = await Scene.open(scope, disk, { workers: 4 });
    await verify(await scene.driver(), 1);
    for (const end of ends) await end();
    disk.close();
  };
  await begin();
  await quiet();
  const [before, unchanged] = [threads(), noteDescriptors()];
  for (let i = 0; i < 3; i++) await begin();
  await unchanged();
  await eventually("the threads have ended", () => threads() <= before);
});

test("a disk that changes its size is of that size in every thread", LIMIT, async (t) => {
  for (const storage of [new MemoryStorage(1 << 20), new NullStorage(1 << 20)]) {
    const scene = await Scene.disk(t, { storage }, { workers: 2 });
    const driver = await scene.driver({ numQueues: 2 });
    const read = (position: number): Promise<unknown> =>
      Promise.all([0, 1].map(() => driver.read(position, 512)));
    await assert.rejects(read(1 << 20), /I\/O error/);
    storage.resize(2 << 20);
    await driver.write((2 << 20) - 512, new Uint8Array(512).fill(9));
    await read((2 << 20) - 512);
    storage.resize(1 << 20);
    await assert.rejects(read(1 << 20), /I\/O error/);
  }
});

test("what cannot be served in threads is refused at once, with the reason", LIMIT, async (t) => {
  const socketPath = join(tempDir(t), "socket");
  const closure = defineDevice({ type: 4, queues: [(chain) => chain.write(Uint8Array.of(1))] });
  const owned = defineDevice({ type: 4, queues: [{}], worker: { module: module("pair") } });
  const gated = new BlkDevice({ storage: new GatedStorage() });
  onEnd(t, () => gated.close());
  const null1 = new BlkDevice({ storage: new NullStorage(1 << 20) });
  // What is left of earlier threads goes with the next ones.
  await assert.rejects(serve(module("nothing"), { socketPath, workers: 1 }));
  await quiet();
  const unchanged = noteDescriptors();
  for (
    const [device, workers, said] of [
      [
        closure,
        1,
        /virtio device 4: this device cannot run in worker threads: its definition does not say how/,
      ],
      [gated, 2, /blk: this device cannot run in worker threads/],
      [owned, 2, /owns rings and does not say how many of them belong together \(worker\.group\)/],
      [null1, 0, /workers must be 1 to 64, got 0/],
      [null1, 65, /workers must be 1 to 64, got 65/],
      [null1, 1.5, /workers must be 1 to 64, got 1.5/],
      [module("nothing"), 1, /nothing\.ts: the default export must be a device, .* got none/],
      [module("broken"), 1, /this module cannot be loaded/],
      [module("counter"), 1, /undefined/],
    ] as const
  ) {
    await assert.rejects(serve(device, { socketPath, workers }), said);
  }
  await unchanged();
});
