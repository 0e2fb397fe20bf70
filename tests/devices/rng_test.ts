import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import fc from "fast-check";
import { close } from "../../ffi/fd.ts";
import { Native } from "../../ffi/native.ts";
import { libc } from "../../ffi/deno.ts";
import { FileSource, MAX_FILL, RateLimiter, RngDevice, type RngOptions } from "../../src/devices/rng/mod.ts";
import type { DriverQueue, SharedMemory } from "../../src/frontend/mod.ts";
import { buffer } from "../session/requests.ts";
import { aWhile, bytesOf, eventually, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";

const PACKED = 1n << 34n;

interface Stage {
  readonly scene: Scene;
  readonly rng: RngDevice;
  readonly queue: DriverQueue;
  readonly memory: SharedMemory;
  /** Asks for bytes; returns what came. */
  ask(length: number): Promise<Uint8Array>;
}

async function stage(t: TestContext, options: RngOptions = {}, withoutFeatures = PACKED): Promise<Stage> {
  const rng = new RngDevice(options);
  const scene = await Scene.open(t, rng);
  onEnd(t, () => options.source?.close?.());
  const frontEnd = await scene.frontEnd({ withoutFeatures });
  const memory = scene.memory(1 << 20);
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 16 });
  const ask = async (length: number): Promise<Uint8Array> => {
    const piece = memory.allocate(length);
    const written = await queue.request([], [buffer(piece)]);
    return piece.bytes.slice(0, written);
  };
  return { scene, rng, queue, memory, ask };
}

for (const [format, without] of [["split", PACKED], ["packed", 0n]] as const) {
  test(`the system's bytes fill what is asked for (${format})`, LIMIT, async (t) => {
    const { ask, rng } = await stage(t, {}, without);
    const samples: Uint8Array[] = [];
    for (const length of [1, 2, 64, 4096, 65536]) {
      const got = await ask(length);
      assert.equal(got.length, length);
      if (length >= 64) samples.push(got.subarray(0, 64));
    }
    assert.equal(new Set(samples.map(String)).size, samples.length);
    assert.equal(rng.bytesGiven, 1 + 2 + 64 + 4096 + 65536);
  });
}

test("one request gets no more than it may, and one without room nothing", LIMIT, async (t) => {
  const { queue, ask, memory } = await stage(t);
  assert.equal((await ask(MAX_FILL + 4096)).length, MAX_FILL);
  const piece = memory.allocate(64);
  assert.equal(await queue.request([buffer(piece)], []), 0);
  assert.equal((await ask(16)).length, 16);
});

test("a file is read once, to its end, and then guests wait", LIMIT, async (t) => {
  const path = join(tempDir(t), "bytes");
  const bytes = bytesOf(1, 1000);
  writeFileSync(path, bytes);
  const errors: unknown[] = [];
  const { ask, queue, memory } = await stage(t, {
    source: new FileSource({ path }),
    onError: (error) => errors.push(error),
  });
  const parts = [await ask(300), await ask(600), await ask(300)];
  assert.deepEqual(parts.map(({ length }) => length), [300, 600, 100]);
  sameBytes(Buffer.concat(parts), bytes);
  void queue.request([], [buffer(memory.allocate(16))]).catch(() => {});
  await eventually("the end is told", () => errors.length === 1);
  assert.match(String(errors[0]), /bytes has no random bytes any more: it is at its end/);
  await aWhile();
  assert.equal(queue.inFlight, 1);
});

test("a pipe is waited for, without a writer too, and nothing of it is lost", LIMIT, async (t) => {
  const path = join(tempDir(t), "pipe");
  execFileSync("mkfifo", [path]);
  const { ask } = await stage(t, { source: new FileSource({ path }) });
  const bytes = bytesOf(2, 700);
  for (const [from, to] of [[0, 100], [100, 400], [400, 700]]) {
    const asked = ask(300);
    await aWhile();
    const writer = openSync(path, "w");
    writeSync(writer, bytes, from, to - from);
    closeSync(writer);
    sameBytes(await asked, bytes.subarray(from, to));
  }
});

test("the standard input of a process is one that was given, and stays open", LIMIT, async (t) => {
  const pair = new Native(8);
  assert.equal(libc.pipe2(pair.address, 0), 0);
  const [reader, writer] = [pair.get32(0), pair.get32(4)];
  onEnd(t, () => [reader, writer].forEach(close));
  const { ask, rng } = await stage(t, { source: new FileSource({ fd: reader }) });
  const asked = ask(8);
  const bytes = new Native(8);
  bytes.bytes.set([1, 2, 3, 4, 5, 6, 7, 8]);
  libc.write(writer, bytes.address, 8n);
  sameBytes(await asked, bytes.bytes);
  assert.equal(rng.bytesGiven, 8);
});

test("what can be no source is refused", LIMIT, (t) => {
  assert.throws(() => new FileSource({ path: tempDir(t) }), /is none \(directory\)/);
  assert.throws(() => new FileSource({ path: "/nowhere/at/all" }), /ENOENT/);
  assert.throws(() => new FileSource({}), /give either/);
});

test("a rate limit counts all guests, and nobody gets less than a byte", { timeout: 20_000 }, async (t) => {
  const { ask, scene, rng } = await stage(t, { rateLimit: { bytes: 100, periodMs: 100 } });
  const other = await scene.frontEnd({ withoutFeatures: PACKED });
  const memory = scene.memory(1 << 16, 0x5000_0000);
  await other.shareMemory(memory);
  const queue = await other.startQueue(0, memory, { size: 4 });
  const start = performance.now();
  for (let i = 0; i < 4; i++) {
    assert.equal((await ask(4096)).length, 100, "at most what one period has");
    assert.ok(await queue.request([], [buffer(memory.allocate(50))]) === 50);
  }
  const took = performance.now() - start;
  // 600 bytes, of which 100 were there at the start.
  assert.ok(took >= 495, `${took} ms`);
  assert.equal(rng.bytesGiven, 600);
});

test("a source that fails leaves the process and the ring alone", LIMIT, async (t) => {
  const errors: unknown[] = [];
  const { queue, memory, scene } = await stage(t, {
    source: {
      fill: () => {
        throw new Error("out of luck");
      },
    },
    onError: (error) => errors.push(error),
  });
  void queue.request([], [buffer(memory.allocate(16))]).catch(() => {});
  await eventually("it is told", () => errors.length === 1);
  assert.deepEqual(scene.log.problems, []);
});

test("a source cannot claim more than it was given", LIMIT, async (t) => {
  const { ask } = await stage(t, { source: { fill: (bytes) => bytes.fill(7) && 1e9 } });
  sameBytes(await ask(100), new Uint8Array(100).fill(7));
});

test("whatever the driver asks for, it gets that many bytes and no byte beside them", LIMIT, async (t) => {
  const { queue, memory } = await stage(t, { source: { fill: (bytes) => bytes.fill(0xaa).length } });
  const room = memory.allocate(8192);
  const pieces = fc.array(fc.record({ at: fc.nat(8000), length: fc.nat(190), readable: fc.boolean() }), {
    minLength: 1,
    maxLength: 8,
  });
  await fc.assert(
    fc.asyncProperty(pieces, async (list) => {
      room.bytes.fill(0x55);
      const buffers = (readable: boolean) =>
        list.filter((each) => each.readable === readable && each.length > 0).map(({ at, length }) =>
          buffer(room, at, length)
        );
      const [readable, writable] = [buffers(true), buffers(false)];
      if (readable.length + writable.length === 0) return;
      const written = await queue.request(readable, writable);
      assert.equal(written, writable.reduce((sum, { length }) => sum + length, 0));
      const expected = new Uint8Array(8192).fill(0x55);
      for (const { at, length, readable } of list) if (!readable) expected.fill(0xaa, at, at + length);
      sameBytes(room.bytes, expected);
    }),
    { seed: 4, numRuns: 100 },
  );
});

test("a rate limiter lets pass what it says, whatever is asked of it", LIMIT, () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 10_000 }),
      fc.integer({ min: 1, max: 5000 }),
      fc.array(fc.integer({ min: 1, max: 20_000 }), { maxLength: 50 }),
      (bytes, periodMs, asked) => {
        let now = 0;
        let passed = 0;
        const limiter = new RateLimiter({ bytes, periodMs }, () => now);
        for (const each of asked) {
          const some = Math.min(each, bytes);
          now += limiter.wait(some);
          assert.equal(limiter.wait(some), 0, "waiting helps");
          limiter.take(some);
          passed += some;
          assert.ok(passed <= bytes + now * bytes / periodMs + 1e-3, `${passed} bytes in ${now} ms`);
        }
      },
    ),
    { seed: 5 },
  );
  for (const wrong of [{ bytes: 0 }, { bytes: 1.5 }, { bytes: 1, periodMs: 0 }]) {
    assert.throws(() => new RateLimiter(wrong), RangeError);
  }
});
