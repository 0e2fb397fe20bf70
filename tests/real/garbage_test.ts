/**
 * Requests leave nothing for the garbage collector. Its own log of a back-end is read, in which every scavenge says how
 * much it found dead.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import process from "node:process";
import type { TestContext } from "node:test";
import test from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { Blkio } from "../../bench/clients.ts";
import { signal } from "../../ffi/eventfd.ts";
import { blkFeatures } from "../../src/devices/blk/mod.ts";
import { FrontEnd, PackedDriverRing, SharedMemory } from "../../src/frontend/mod.ts";
import { mask } from "../../src/protocol/mod.ts";
import { tempDir } from "../support/cleanup.ts";
import { imageOf, MIB } from "../support/image.ts";
import { root } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { Child } from "../support/process.ts";
import { runtime, startWords } from "../support/runtime.ts";

/** Requests before those that count: what is not compiled yet leaves garbage. */
const WARM_UP = 300_000;
const REQUESTS = 2_000_000;
/**
 * The smallest object has 16 bytes, so this is less than one for every second request. Under Node every call of the C library
 * leaves some, and how many calls there are depends on how many requests come at once: less than half of what a promise leaves.
 */
const BYTES_EACH = runtime === "deno" ? 8 : 64;
/** While it is busy the back-end goes round its event loop every millisecond, which leaves less than this. */
const BYTES_EACH_MS = 1000;

/** A disk whose garbage collector says what it does. */
class Disk {
  readonly socket: string;
  readonly #child: Child;

  static async start(t: TestContext, storage: string): Promise<Disk> {
    const socket = join(tempDir(t), "blk.sock");
    // The engine writes its log by way of the C library, which would keep the last lines back.
    const child = Child.start(t, "stdbuf", [
      ...["-oL", process.execPath],
      ...startWords(["--allow-ffi", "--v8-flags=--trace-gc"], [join(root, "src/cli/mod.ts")]),
      ...["blk", `--socket-path=${socket}`, `--storage=${storage}`],
    ]);
    await child.waitLine(/^vhost-user blk/, 30_000);
    return new Disk(socket, child);
  }

  private constructor(socket: string, child: Child) {
    this.socket = socket;
    this.#child = child;
  }

  /** Bytes that were found dead up to now. */
  get dead(): number {
    const found = this.#child.output.matchAll(
      /: (?:Scavenge|Mark-Compact[^:]*?) ([\d.]+) \([\d.]+\) -> ([\d.]+) /g,
    );
    return [...found].reduce((sum, [, before, after]) => sum + (Number(before) - Number(after)) * MIB, 0);
  }

  /** Fails when some requests leave more than next to nothing. */
  async check(what: string, work: (count: number) => Promise<unknown>): Promise<void> {
    await work(WARM_UP);
    const before = this.dead;
    const began = performance.now();
    await work(REQUESTS);
    const most = BYTES_EACH * REQUESTS + BYTES_EACH_MS * (performance.now() - began);
    // The log is a pipe; what was written before this is here after a turn of the event loop.
    await turn();
    const dead = this.dead - before;
    assert.ok(
      dead < most,
      `${what}: ${dead} bytes of garbage of ${REQUESTS} requests, at most ${most} may be`,
    );
  }
}

for (
  const [name, storage] of [
    ["a null disk", () => "null:64M"],
    ["a file", (t: TestContext) => `file:${imageOf(t, new Uint8Array(64 * MIB).fill(1))}`],
  ] as const
) {
  realTest(
    `two million requests to ${name} leave no garbage`,
    ["libblkio-dev"],
    { timeout: 240_000 },
    async (t) => {
      const program = await Blkio.compile(t);
      const disk = await Disk.start(t, storage(t));
      const load = { socket: disk.socket, queues: 1, depth: 128, size: 4096 };
      await disk.check(name, (count) => program.load({ ...load, count, write: false }));
    },
  );
}

test("two million requests in a packed ring leave no garbage", { timeout: 240_000 }, async (t) => {
  const disk = await Disk.start(t, "null:64M");
  const frontEnd = await FrontEnd.connect(disk.socket, { deviceFeatures: mask(blkFeatures.FLUSH) });
  const memory = new SharedMemory(MIB);
  try {
    await frontEnd.shareMemory(memory);
    const { ring, kick } = await frontEnd.startQueue(0, memory, { size: 256 });
    assert.ok(ring instanceof PackedDriverRing);
    await frontEnd.driverOk();
    const header = memory.allocate(16); // Zeros: a read of sector 0.
    const status = memory.allocate(1, 1);
    const data = memory.allocate(4096);
    const readable = [{ guestAddress: header.guestAddress, length: 16 }];
    const writable = [
      { guestAddress: data.guestAddress, length: 4096 },
      { guestAddress: status.guestAddress, length: 1 },
    ];
    await disk.check("a packed ring", async (count) => {
      status.bytes[0] = 0xff;
      for (let added = 0; added < count || ring.free < ring.size;) {
        while (added < count && ring.add(readable, writable) >= 0) added++;
        if (ring.publish()) signal(kick);
        // Another one may take them too: the queue itself, when it is rung.
        const free = ring.free;
        while (ring.take() !== null);
        if (ring.free === free) await turn();
      }
      assert.equal(status.bytes[0], 0);
    });
  } finally {
    frontEnd.close();
    memory.close();
  }
});
