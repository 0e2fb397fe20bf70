import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import {
  defineDevice,
  type Device,
  type OwnedQueue,
  type ServeOptions,
  type ServerMetrics,
} from "../../mod.ts";
import type { Buffer, DriverQueue, FrontEnd } from "../../src/frontend/mod.ts";
import { latencyBounds, prometheusText } from "../../src/metrics/mod.ts";
import { latencyBucket } from "../../src/backend/ring_counters.ts";
import { buffer } from "../session/requests.ts";
import { bytesOf, eventually, LIMIT, Scene } from "../session/scene.ts";
import { figure, parseExposition } from "./exposition.ts";

const PACKED = 1n << 34n;
/** Threads may have their modules checked first. */
const THREADS = { timeout: 60_000 };

for (const [where, serving] of [["the server's thread", {}], ["two workers", { workers: 2 }]] as const) {
  for (const [format, withoutFeatures] of [["split", PACKED], ["packed", 0n]] as const) {
    test(`a disk's requests and bytes are counted (${format}, ${where})`, THREADS, async (t) => {
      const scene = await Scene.disk(t, {}, { ...serving, measure: true } as ServeOptions);
      const driver = await scene.driver({ withoutFeatures });
      // 16 bytes of header to read, a byte of status to write.
      for (let i = 0; i < 10; i++) await driver.write(4096 * i, bytesOf(i, 4096));
      for (let i = 0; i < 7; i++) await driver.read(4096 * i, 2048);
      const [ring] = scene.server.metrics.rings;
      assert.deepEqual([ring.taken, ring.returned, ring.dropped, ring.failed], [17, 17, 0, 0]);
      assert.equal(ring.readable, 17 * 16 + 10 * 4096);
      assert.equal(ring.written, 17 + 7 * 2048);
      assert.ok(ring.notified > 0);
      assert.ok(ring.latencySum > 0);
      const timed = ring.latencies.reduce((sum, each) => sum + each);
      assert.ok(timed > 0 && timed <= 17, `${timed} requests were timed`);

      const families = parseExposition(prometheusText([scene.server]));
      const labels = { device: "blk", socket: scene.path, ring: "0" };
      assert.equal(figure(families, "vhost_user_requests_total", labels), 17);
      assert.equal(figure(families, "vhost_user_requests_in_flight", labels), 0);
      assert.equal(figure(families, "vhost_user_read_bytes_total", labels), ring.readable);
      assert.equal(figure(families, "vhost_user_request_duration_seconds_count", labels), timed);
      assert.equal(figure(families, "vhost_user_sessions_active", { socket: scene.path }), 1);
      // Rings that nobody has used are not there.
      assert.equal(families.get("vhost_user_requests_total")?.samples.length, 1);
      await driver.close();
      await eventually("the session ends", () => scene.server.metrics.sessionsEnded === 1);
      assert.equal(scene.server.metrics.sessionsFailed, 0);
      const threads = families.get("vhost_user_thread_looks_total")?.samples.map((each) =>
        each.labels.thread
      );
      assert.deepEqual(threads, "workers" in serving ? ["main", "0", "1"] : ["main"]);
    });
  }
}

test("nothing is timed until somebody asks", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const driver = await scene.driver();
  for (let i = 0; i < 100; i++) await driver.read(0, 512);
  const { metrics } = scene.server;
  assert.equal(metrics.rings[0].latencySum, 0);
  assert.ok(!prometheusText([scene.server]).includes("duration"));
  metrics.measuring = true;
  for (let i = 0; i < 100; i++) await driver.read(0, 512);
  assert.ok(metrics.rings[0].latencySum > 0);
});

/** A device whose ring 0 answers later, or never; ring 1 fails; ring 2 is owned. */
function slow(): { device: Device; release: () => void; queue: () => OwnedQueue } {
  const waiting: (() => void)[] = [];
  let owned: OwnedQueue | undefined;
  const device = defineDevice({
    type: 42,
    name: 'a "slow" \\ device\nindeed',
    queues: [
      (chain) => {
        chain.write(new Uint8Array(3));
        return new Promise<void>((resolve) => waiting.push(resolve));
      },
      (chain) => {
        chain.write(new Uint8Array(2));
        throw new Error("on purpose");
      },
      { start: (queue) => owned = queue, stop: () => owned = undefined },
    ],
  });
  return {
    device,
    release: () => waiting.splice(0).forEach((resolve) => resolve()),
    queue: () => owned as OwnedQueue,
  };
}

interface Stage {
  readonly scene: Scene;
  readonly frontEnd: FrontEnd;
  readonly pieces: readonly Buffer[];
  readonly metrics: ServerMetrics;
  start(index: number): Promise<DriverQueue>;
  /** Completes the requests of ring 0. */
  release(): void;
  /** Ring 2. */
  queue(): OwnedQueue;
}

async function stage(t: TestContext): Promise<Stage> {
  const { device, ...rest } = slow();
  const scene = await Scene.open(t, device, { measure: true });
  const frontEnd = await scene.frontEnd();
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  const pieces = [buffer(memory.allocate(10)), buffer(memory.allocate(20))];
  const start = (index: number): Promise<DriverQueue> => frontEnd.startQueue(index, memory, { size: 8 });
  return { scene, frontEnd, pieces, start, metrics: scene.server.metrics, ...rest };
}

test("requests in flight, and those that nobody will return", LIMIT, async (t) => {
  const { frontEnd, pieces: [a, b], start, metrics, release } = await stage(t);
  const queue = await start(0);
  const requests = [1, 2].map(() => queue.request([a], [b]));
  const [ring] = metrics.rings;
  await eventually("both are with the device", () => ring.taken === 2);
  assert.deepEqual([ring.returned, ring.readable, ring.written], [0, 20, 0]);
  release();
  await Promise.all(requests);
  assert.deepEqual([ring.returned, ring.written, ring.dropped], [2, 6, 0]);
  void queue.request([a], [b]).catch(() => {});
  await eventually("one more is with the device", () => ring.taken === 3);
  frontEnd.close();
  await eventually("the session ends", () => metrics.sessionsEnded === 1);
  release();
  await eventually("it is given up", () => ring.dropped === 1);
  assert.equal(ring.taken - ring.returned - ring.dropped, 0);
});

test("a handler that fails", LIMIT, async (t) => {
  const { scene, pieces: [a, b], start, metrics } = await stage(t);
  const queue = await start(1);
  await queue.request([a], [b]);
  await scene.log.problem(/a request on ring 1 failed/);
  const ring = metrics.rings[1];
  assert.deepEqual([ring.taken, ring.returned, ring.failed, ring.written], [1, 1, 1, 2]);
});

test("a ring that the device owns", LIMIT, async (t) => {
  const { frontEnd, pieces: [a, b], start, metrics, queue: owned } = await stage(t);
  const queue = await start(2);
  const first = queue.request([a], [b]);
  void queue.request([a], [b]).catch(() => {});
  await eventually("there is a chain", () => {
    const chain = owned().take();
    if (chain === null) return false;
    chain.write(new Uint8Array(5));
    owned().complete(chain);
    return true;
  });
  await first;
  const ring = metrics.rings[2];
  assert.deepEqual([ring.taken, ring.returned, ring.written, ring.dropped], [1, 1, 5, 0]);
  assert.ok(owned().take() !== null);
  assert.deepEqual([ring.taken, ring.returned], [2, 1]);
  await frontEnd.request("GET_VRING_BASE", { index: 2, num: 0 });
  assert.deepEqual([ring.taken, ring.returned, ring.dropped], [2, 1, 1]);
  assert.ok(ring.latencySum > 0);
});

test("labels are escaped, and come back as they were", LIMIT, async (t) => {
  const { scene, pieces: [a, b], start } = await stage(t);
  await (await start(1)).request([a], [b]);
  const text = prometheusText([scene.server]);
  assert.ok(text.includes('device="a \\"slow\\" \\\\ device\\nindeed"'), text);
  const [{ labels }] = parseExposition(text).get("vhost_user_requests_total")?.samples ?? [];
  assert.equal(labels.device, 'a "slow" \\ device\nindeed');
});

test("several servers: each sample once", LIMIT, async (t) => {
  const scenes = [await Scene.disk(t), await Scene.disk(t)];
  for (const scene of scenes) await (await scene.driver()).read(0, 512);
  const families = parseExposition(prometheusText(scenes.map(({ server }) => server)));
  for (const { path } of scenes) {
    assert.ok(figure(families, "vhost_user_requests_total", { socket: path }) >= 1);
  }
  assert.equal(families.get("vhost_user_thread_sleeps_total")?.samples.length, 1);
});

test("a latency falls into the first bucket whose bound it does not exceed", LIMIT, () => {
  const expected = (us: number): number => {
    const found = latencyBounds.findIndex((bound) => us <= bound);
    return found < 0 ? latencyBounds.length : found;
  };
  const tries = latencyBounds.flatMap((bound) => [bound, bound * 0.999, bound * 1.001]);
  for (const us of [...tries, 0, -1, NaN, 1e9, Infinity]) {
    assert.equal(latencyBucket(us), Number.isNaN(us) ? 0 : expected(us), `${us} µs`);
  }
  for (let i = 1; i < latencyBounds.length; i++) assert.ok(latencyBounds[i] > latencyBounds[i - 1]);
});
