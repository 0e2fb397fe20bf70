/**
 * Memory that changes while it is worked on: another thread writes into the rings, the tables, the requests, the in-flight
 * buffer and the dirty log of a disk, as fast as it can.
 *
 * Nothing may crash, hang, or show a guest what is not its own. How the threads meet is left to chance: what has failed may
 * have to be repeated.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { consume } from "../../../ffi/eventfd.ts";
import { close } from "../../../ffi/fd.ts";
import { Mapping, memoryFile } from "../../../ffi/mapping.ts";
import { BlkDevice, FileStorage, MemoryStorage } from "../../../src/devices/blk/mod.ts";
import { FrontEnd, type Piece, SharedMemory } from "../../../src/frontend/mod.ts";
import { IotlbType, mask, ringFeatures } from "../../../src/protocol/mod.ts";
import { Ring } from "../../session/rings.ts";
import { Scene, verify } from "../../session/scene.ts";
import { onEnd, type Scope, tempDir } from "../../support/cleanup.ts";
import type { Stand, Target } from "../target.ts";
import type { Area, Scribbling } from "./scribbler.ts";

/** A session under attack. */
interface Step {
  readonly disk: Disk;
  readonly packed: boolean;
  readonly indirect: boolean;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly inflight: boolean;
  readonly log: boolean;
  readonly iommu: boolean;
  readonly seed: number;
  readonly milliseconds: number;
}

const DISKS = ["memory", "file", "workers"] as const;
type Disk = typeof DISKS[number];

const SIZE = 1 << 20;
const ENTRIES = 32;
const QUEUES = 2;
/** How long a ring may take to stop. */
const PATIENCE = 30_000;
const SECRET = Uint8Array.from("vhost-user secret", (each) => each.charCodeAt(0) ^ 0x80);
/** LOG_ALL. */
const LOG_ALL = 26;
const PACKED_START = 0x8000_8000;

class RaceStand implements Stand<Step> {
  readonly #scenes: Readonly<Record<Disk, Scene>>;
  readonly #witness: () => Promise<void>;
  #worked = 0;
  #broken = 0;

  constructor(scenes: Readonly<Record<Disk, Scene>>, witness: () => Promise<void>) {
    this.#scenes = scenes;
    this.#witness = witness;
  }

  notes(): string {
    return `${this.#worked} reads and writes of a disk in memory, ${this.#broken} rings broken`;
  }

  async run(steps: readonly Step[]): Promise<number> {
    const before = this.#worked;
    for (const step of steps) {
      await this.#attack(step);
      await this.#witness();
    }
    return this.#worked - before;
  }

  async #attack(step: Step): Promise<void> {
    const scene = this.#scenes[step.disk];
    const ends: (() => void | Promise<void>)[] = [];
    const scope: Scope = { after: (fn) => void ends.push(fn) };
    onEnd(scope, () => {});
    try {
      await this.#session(scope, scene.path, step);
    } finally {
      for (const end of ends) await end();
    }
    while (scene.server.sessions > 0) await sleep(1);
    const wrong = scene.log.problems.filter((line) =>
      !/is broken|request on ring \d+ failed|IOTLB|in-flight region/.test(line)
    );
    assert.deepEqual(wrong, []);
    scene.log.lines.length = 0;
  }

  async #session(scope: Scope, path: string, step: Step): Promise<void> {
    const { packed, indirect, eventIdx, inOrder, inflight, log, iommu } = step;
    const without = mask(
      ...packed ? [] : [ringFeatures.RING_PACKED],
      ...indirect ? [] : [ringFeatures.INDIRECT_DESC],
      ...eventIdx ? [] : [ringFeatures.EVENT_IDX],
      ...inOrder ? [] : [ringFeatures.IN_ORDER],
      ...iommu ? [] : [ringFeatures.ACCESS_PLATFORM],
      ...log ? [] : [LOG_ALL],
    );
    const frontEnd = await FrontEnd.connect(path, {
      deviceFeatures: 0xff_ffffn | mask(ringFeatures.IN_ORDER, ringFeatures.ACCESS_PLATFORM),
      withoutFeatures: without,
      protocolFeatures: 0xf_ffffn,
      channel: {
        // What is not known is not there.
        IOTLB_MSG: () => {
          throw new Error("there is nothing");
        },
      },
    });
    onEnd(scope, () => frontEnd.close());
    const memory = new SharedMemory(SIZE);
    onEnd(scope, () => memory.close());
    await frontEnd.shareMemory(memory);
    const areas: Area[] = [];
    const inside = (kind: Area["kind"], { guestAddress, bytes }: Piece): void =>
      void areas.push({ kind, offset: guestAddress - memory.guestAddress, length: bytes.length });
    if (iommu) {
      for (const iova of [BigInt(memory.guestAddress), memory.userAddress]) {
        await frontEnd.request("IOTLB_MSG", {
          iova,
          size: BigInt(SIZE),
          userAddress: memory.userAddress,
          permission: 3,
          type: IotlbType.UPDATE,
        });
      }
    }
    const shared: Mapping[] = [];
    if (inflight) {
      shared.push(
        await this.#file(scope, "in-flight", async (fd) => {
          const inflight = { mmapSize: BigInt(SIZE), mmapOffset: 0n, numQueues: QUEUES, queueSize: ENTRIES };
          await frontEnd.request("SET_INFLIGHT_FD", inflight, [fd]);
        }),
      );
    }
    if (log) {
      shared.push(
        await this.#file(scope, "log", async (fd) => {
          await frontEnd.request("SET_LOG_BASE", { size: BigInt(SIZE), offset: 0n }, [fd]);
        }),
      );
      await frontEnd.request("SET_FEATURES", frontEnd.features | 1n << BigInt(LOG_ALL));
    }
    const rings: Ring[] = [];
    for (let index = 0; index < QUEUES; index++) {
      const ring = new Ring(scope, frontEnd, memory, { index, size: ENTRIES });
      rings.push(ring);
      inside("descriptors", ring.descriptor);
      inside("available", ring.available);
      inside("used", ring.used);
      await this.#start(ring, packed);
    }
    inside("tables", memory.allocate(64 * 16));
    inside("headers", memory.allocate(256 * 16, 16));
    inside("anything", memory.allocate(1 << 16));
    await frontEnd.driverOk();
    const scribblings = [
      { address: memory.userAddress, byteLength: SIZE, areas },
      ...shared.map(({ address }): Pick<Scribbling, "address" | "byteLength" | "areas"> => ({
        address,
        byteLength: SIZE,
        areas: [{ kind: "anything", offset: 0, length: 8192 }],
      })),
    ].map((where, i): Scribbling => ({
      ...where,
      guest: [memory.guestAddress, memory.guestAddress + SIZE],
      packed,
      indirect,
      size: ENTRIES,
      seed: step.seed + i,
      kicks: rings.map(({ kick }) => kick),
      state: new SharedArrayBuffer(8),
    }));
    const threads = scribblings.map(() => scribbler());
    try {
      await Promise.all(threads.map(async (thread, i) => {
        const state = new Int32Array(scribblings[i].state);
        thread.postMessage(scribblings[i]);
        const started = Atomics.waitAsync(state, 1, 0);
        if (started.async) await started.value;
      }));
      for (const end = performance.now() + step.milliseconds; performance.now() < end;) {
        await sleep(1);
        for (const ring of rings) {
          const broken = consume(ring.error) === "rung";
          if (broken) this.#broken++;
          // One that waits for an address that there is not stands still without being broken.
          if (broken || iommu) await this.#restart(ring, packed);
        }
        await frontEnd.writeConfig(32, Uint8Array.of(Number(performance.now() % 2 < 1)));
      }
    } finally {
      for (const [i, { state }] of scribblings.entries()) {
        const cell = new Int32Array(state);
        Atomics.store(cell, 0, 1);
        const ended = Atomics.waitAsync(cell, 0, 1, PATIENCE);
        if (ended.async) await ended.value;
        threads[i].terminate();
      }
    }
    for (const ring of rings) await this.#stop(ring);
    const all = memory.piece(0, SIZE).bytes;
    assert.ok(
      Buffer.from(all.buffer, all.byteOffset, SIZE).indexOf(SECRET) < 0,
      "what is on the disk of another guest is in this one's memory",
    );
  }

  async #file(scope: Scope, name: string, give: (fd: number) => Promise<void>): Promise<Mapping> {
    const fd = memoryFile(name, SIZE);
    onEnd(scope, () => close(fd));
    const mapping = new Mapping(fd, SIZE);
    onEnd(scope, () => mapping.unmap());
    await give(fd);
    return mapping;
  }

  async #start(ring: Ring, packed: boolean): Promise<void> {
    ring.reset();
    await ring.place(packed ? PACKED_START : 0);
    await ring.setError();
    await ring.setCall();
    await ring.setKick();
    await ring.enable();
  }

  async #restart(ring: Ring, packed: boolean): Promise<void> {
    await this.#stop(ring);
    await this.#start(ring, packed).catch((error) => {
      // What is in the in-flight buffer makes no sense any more: that ring is broken at its start.
      if (error?.name !== "ProtocolError") throw error;
    });
  }

  async #stop(ring: Ring): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`ring ${ring.index} does not stop`)), PATIENCE);
    });
    await Promise.race([ring.stop(), limit]).finally(() => clearTimeout(timer));
  }

  /** A disk has done something. */
  count(): void {
    this.#worked++;
  }
}

function scribbler(): Worker {
  return new Worker(new URL("./scribbler.ts", import.meta.url), { type: "module" });
}

/** Memory that changes while it is worked on. */
export const changingMemory: Target<Step> = {
  name: "changing-memory",
  summary: "A second thread writes into the rings and requests of a disk that is served.",
  unit: "requests",
  cases: 24,
  least: 50,
  make: (random) => {
    const yes = (): boolean => random.int(0, 1) === 1;
    return [{
      disk: random.pick(DISKS),
      packed: yes(),
      indirect: yes(),
      eventIdx: yes(),
      inOrder: random.int(0, 3) === 0,
      inflight: random.int(0, 3) === 0,
      log: random.int(0, 3) === 0,
      iommu: random.int(0, 5) === 0,
      seed: random.int(0, 1 << 30),
      milliseconds: random.pick([50, 200]),
    }];
  },
  async open(scope): Promise<RaceStand> {
    const folder = tempDir(scope);
    const secret = new Uint8Array(SIZE);
    for (let at = 0; at + SECRET.length <= SIZE; at += SECRET.length) secret.set(SECRET, at);
    for (const name of ["file", "workers", "witness"]) {
      writeFileSync(join(folder, name), new Uint8Array(SIZE));
    }
    writeFileSync(join(folder, "secret"), secret);
    const scene = async (storage: MemoryStorage | FileStorage, workers?: number): Promise<Scene> => {
      const device = new BlkDevice({ storage, numQueues: QUEUES, id: "race" });
      onEnd(scope, () => device.close());
      return await Scene.open(scope, device, { workers, iommu: true });
    };
    let count = (): void => {};
    class Counting extends MemoryStorage {
      override read(...args: Parameters<MemoryStorage["read"]>): ReturnType<MemoryStorage["read"]> {
        count();
        return super.read(...args);
      }
      override write(...args: Parameters<MemoryStorage["write"]>): ReturnType<MemoryStorage["write"]> {
        count();
        return super.write(...args);
      }
    }
    const scenes = {
      memory: await scene(new Counting(SIZE)),
      file: await scene(new FileStorage(join(folder, "file"))),
      workers: await scene(new FileStorage(join(folder, "workers")), 2),
    };
    // Somebody else's disks, through the same process: one is read all the time, one is written and read.
    const witness = await (await scene(new FileStorage(join(folder, "witness")))).driver();
    const other = await (await scene(new FileStorage(join(folder, "secret")))).driver();
    let seed = 0;
    const stand = new RaceStand(scenes, async () => {
      await verify(witness, seed++);
      const read = await other.read(0, SIZE);
      assert.equal(Buffer.compare(read, secret), 0, "the disk of another guest is as it was");
    });
    count = () => stand.count();
    const step =
      changingMemory.make({ int: () => 0, pick: (list: readonly unknown[]) => list[0] } as never)[0];
    for (const disk of DISKS) await stand.run([{ ...step, disk }]);
    return stand;
  },
};
