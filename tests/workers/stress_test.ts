import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers";
import { BlkRequest, MemoryStorage } from "../../src/devices/blk/mod.ts";
import type { FrontEnd, Piece, SharedMemory } from "../../src/frontend/mod.ts";
import { noteDescriptors } from "../session/descriptors.ts";
import { filled, header, statusByte } from "../session/requests.ts";
import { NEXT, type Ring, WRITE } from "../session/rings.ts";
import { aWhile, eventually, sameBytes, Scene } from "../session/scene.ts";
import { onStage } from "../session/stage.ts";

// Rings in two threads at full speed, while the session's thread changes everything under them.

const PAIRS = 20;
const SIZE = 128;
const ROUNDS = 25;
/** Bytes of a request. */
const LENGTH = 16384;
const MEMORY = 4 << 20;

/** A write and a read of the same sector behind it, in six descriptors of a ring. */
class Pair {
  readonly heads: readonly [number, number];
  readonly #out: Piece;
  readonly #in: Piece;
  readonly #statuses: readonly [Piece, Piece];

  constructor(ring: Ring, memory: SharedMemory, n: number, sector: number) {
    this.#out = filled(memory, new Uint8Array(LENGTH));
    this.#in = filled(memory, new Uint8Array(LENGTH));
    this.#statuses = [statusByte(memory), statusByte(memory)];
    this.heads = [6 * n, 6 * n + 3];
    for (const [i, type] of [BlkRequest.OUT, BlkRequest.IN].entries()) {
      const at = this.heads[i];
      const data = i === 0 ? this.#out : this.#in;
      const flags = i === 0 ? NEXT : NEXT | WRITE;
      ring.describe(at, {
        address: header(memory, type, sector).guestAddress,
        length: 16,
        flags: NEXT,
        next: at + 1,
      });
      ring.describe(at + 1, { address: data.guestAddress, length: LENGTH, flags, next: at + 2 });
      ring.describe(at + 2, { address: this.#statuses[i].guestAddress, length: 1, flags: WRITE });
    }
  }

  /** Other bytes to write, and nothing read yet. */
  renew(): void {
    crypto.getRandomValues(this.#out.bytes);
    this.#in.bytes.fill(0);
    for (const { bytes } of this.#statuses) bytes[0] = 0xee;
  }

  /** What was read is what was written. */
  check(): void {
    assert.deepEqual(this.#statuses.map(({ bytes }) => bytes[0]), [0, 0]);
    sameBytes(this.#in.bytes, this.#out.bytes, "what was read");
  }

  /** Everything that the device may write. */
  touched(): Uint8Array[] {
    return [this.#in, ...this.#statuses].map(({ bytes }) => bytes.slice());
  }
}

/** A ring that is driven as fast as it goes. */
class Load {
  readonly ring: Ring;
  readonly #pairs: readonly Pair[];
  /** Requests that were made available since the beginning. */
  #offered = 0;

  constructor(ring: Ring, memory: SharedMemory) {
    this.ring = ring;
    this.#pairs = Array.from(
      { length: PAIRS },
      (_, n) => new Pair(ring, memory, n, (ring.index * PAIRS + n) * LENGTH / 512),
    );
  }

  /** Makes all requests available. */
  offer(): void {
    for (const pair of this.#pairs) pair.renew();
    this.ring.send(...this.#pairs.flatMap(({ heads }) => heads));
    this.#offered = (this.#offered + 2 * PAIRS) & 0xffff;
  }

  get done(): boolean {
    return this.ring.usedIndex === this.#offered;
  }

  /** Goes on making requests until something is over. */
  async during<T>(something: Promise<T>): Promise<T> {
    let over = false;
    const result = something.finally(() => over = true);
    while (!over) {
      if (this.done) {
        for (const pair of this.#pairs) pair.check();
        this.offer();
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    return await result;
  }

  /** Waits until all are complete, and checks them. */
  async check(): Promise<void> {
    await eventually(`all requests of ring ${this.ring.index}`, () => this.done);
    for (const pair of this.#pairs) pair.check();
  }

  touched(): Uint8Array[] {
    return [this.ring.snapshot(), ...this.#pairs.flatMap((pair) => pair.touched())];
  }
}

async function setTable(frontEnd: FrontEnd, ...memories: readonly SharedMemory[]): Promise<void> {
  const regions = memories.map(({ guestAddress, byteLength, userAddress }) => ({
    guestAddress: BigInt(guestAddress),
    size: BigInt(byteLength),
    userAddress,
    mmapOffset: 0n,
  }));
  await frontEnd.request("SET_MEM_TABLE", regions, memories.map(({ fd }) => fd));
}

/** Two rings of a disk that is served by two threads. */
async function twoRings(
  t: Parameters<typeof Scene.open>[0],
  pollUs: number,
): Promise<{ scene: Scene; frontEnd: FrontEnd; memory: SharedMemory; loads: Load[] }> {
  const scene = await Scene.disk(t, { storage: new MemoryStorage(1 << 20) }, { workers: 2, pollUs });
  const { frontEnd, memory, ring } = await onStage(t, scene, 0n, MEMORY);
  const loads = [0, 1].map((index) => new Load(ring({ index, size: SIZE }), memory));
  for (const { ring } of loads) await ring.start();
  return { scene, frontEnd, memory, loads };
}

for (const pollUs of [50, 0]) {
  test(`the memory table changes under two threads, pollUs ${pollUs}`, { timeout: 30_000 }, async (t) => {
    const { scene, frontEnd, memory, loads } = await twoRings(t, pollUs);
    const more = scene.memory(1 << 16, 0x4000_0000);
    const unchanged = noteDescriptors();
    for (let round = 0; round < ROUNDS; round++) {
      for (const load of loads) load.offer();
      // Added, taken away, and the same again, by both ways of saying so.
      await loads[0].during(loads[1].during(setTable(frontEnd, memory, more)));
      await loads[0].during(loads[1].during(setTable(frontEnd, memory)));
      await loads[0].during(loads[1].during(setTable(frontEnd, memory)));
      for (const load of loads) await load.check();
    }
    await unchanged();
    assert.deepEqual(scene.log.problems, []);
  });

  test(
    `rings stop and start: after the answer nothing is touched, pollUs ${pollUs}`,
    { timeout: 30_000 },
    async (t) => {
      const { scene, loads } = await twoRings(t, pollUs);
      const unchanged = noteDescriptors();
      let unfinished = 0;
      for (let round = 0; round < ROUNDS; round++) {
        for (const load of loads) load.offer();
        const stopped = loads[round % 2];
        const base = await stopped.during(stopped.ring.stop());
        assert.equal(stopped.ring.usedIndex, base, "what was taken is complete");
        const before = stopped.touched();
        if (!stopped.done) unfinished++;
        // The other one goes on meanwhile.
        await loads[1 - round % 2].check();
        if (round % 5 === 0) await aWhile();
        assert.deepEqual(stopped.touched(), before);
        await stopped.ring.place(base);
        await stopped.ring.setCall();
        await stopped.ring.setKick();
        await stopped.check();
      }
      await unchanged();
      assert.deepEqual(scene.log.problems, []);
      assert.ok(unfinished > 0, "no stop came before everything was taken");
    },
  );
}

test("a front-end that leaves at full speed leaves nothing behind", { timeout: 30_000 }, async (t) => {
  const scene = await Scene.disk(t, { storage: new MemoryStorage(1 << 20) }, { workers: 2 });
  const unchanged = noteDescriptors();
  for (let round = 0; round < 5; round++) {
    const ends: (() => void | Promise<void>)[] = [];
    const scope = { after: (end: () => void | Promise<void>) => void ends.push(end) };
    const { frontEnd, memory, ring } = await onStage(scope, scene, 0n, MEMORY);
    const loads = [0, 1].map((index) => new Load(ring({ index, size: SIZE }), memory));
    for (const { ring } of loads) await ring.start();
    for (const load of loads) load.offer();
    frontEnd.close();
    for (const end of ends) await end();
    memory.close();
  }
  await eventually("all have left", () => scene.server.sessions === 0);
  await unchanged();
  assert.deepEqual(scene.log.problems, []);
});
