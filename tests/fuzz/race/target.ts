/**
 * Memory that changes while it is worked on: threads write into the rings, the tables, the requests, the in-flight buffer and
 * the dirty log of every ready device, as fast as they can.
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
import { BlkDevice, FileStorage } from "../../../src/devices/blk/mod.ts";
import { FrontEnd, type Piece, SharedMemory } from "../../../src/frontend/mod.ts";
import {
  has,
  IotlbType,
  mask,
  type ProtocolFeature,
  protocolFeatures,
  ringFeatures,
} from "../../../src/protocol/mod.ts";
import type { BlkDriver } from "../../../src/tools/blk_driver.ts";
import { Ring } from "../../session/rings.ts";
import { Scene, verify } from "../../session/scene.ts";
import { onEnd, type Scope, tempDir } from "../../support/cleanup.ts";
import { Random } from "../../support/random.ts";
import { TestThread } from "../../support/thread.ts";
import { type Subject, subjects } from "../guest/devices.ts";
import { correct, request } from "../guest/form.ts";
import { Lane } from "../guest/lane.ts";
import { repeated, scoped, SECRET, Served, type Serving } from "../guest/served.ts";
import type { Stand, Target } from "../target.ts";
import { type Area, GROUP, type Pattern, type RingAreas, type Scribbling } from "./scribbler.ts";

/** A session under attack. */
interface Step {
  /** {@link Place.name}. */
  readonly device: string;
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

/** Bytes of the files of disks, and of the in-flight buffer and the dirty log. */
const SIZE = 1 << 20;
const MEMORY = 4 << 20;
/** Where devices write, most of the time. Requests share it. */
const ROOM = 1 << 18;
/** Bytes of the in-flight buffer and the dirty log that change. */
const RECORDED = 8192;
const ENTRIES = 32;
const TABLES = 16;
/** Requests that are made for each ring, and their longest. */
const PATTERNS = 12;
const LONGEST = 20_000;
/** How long a ring may take to stop, or to return anything. */
const PATIENCE = 30_000;
/** Threads that write: into memory, the in-flight buffer and the dirty log. */
const THREADS = 3;
/** LOG_ALL. */
const LOG_ALL = 26;

/** A device that is attacked. */
export interface Place {
  /** Its name in steps. */
  readonly name: string;
  /** What it is, and what requests it knows. */
  readonly subject: Subject;
  /** How it is served, with files in a folder. */
  serving?(folder: string): Serving;
}

let files = 0;
function disk(folder: string): BlkDevice {
  const path = join(folder, `disk-${files++}`);
  writeFileSync(path, new Uint8Array(SIZE));
  return new BlkDevice({ storage: new FileStorage(path), numQueues: 2 });
}

const blk = subjects.find(({ name }) => name === "blk") as Subject;

/** Every ready device, and disks that do not lie in memory. */
const PLACES: readonly Place[] = [
  ...subjects.map((subject) => ({ name: subject.name, subject })),
  { name: "blk-file", subject: blk, serving: (folder) => ({ make: () => disk(folder) }) },
  { name: "blk-workers", subject: blk, serving: (folder) => ({ make: () => disk(folder), workers: 2 }) },
];

/** Other guests of the same process, with disks of their own. */
interface Witnesses {
  /** Writes and reads while a device is attacked. */
  beside(): Promise<void>;
  /** Reads what nobody may have changed. */
  after(): Promise<void>;
}

class RaceStand implements Stand<Step> {
  readonly #devices: ReadonlyMap<string, Served>;
  readonly #threads: readonly TestThread[];
  readonly #witnesses: Witnesses;
  readonly #returned = new Map<string, number>();
  #broken = 0;

  constructor(
    devices: ReadonlyMap<string, Served>,
    threads: readonly TestThread[],
    witnesses: Witnesses,
  ) {
    this.#devices = devices;
    this.#threads = threads;
    this.#witnesses = witnesses;
  }

  notes(): string {
    return `returned by ${
      [...this.#returned].map((each) => each.join(" ")).join(", ")
    }; ${this.#broken} rings broken`;
  }

  async run(steps: readonly Step[]): Promise<number> {
    let returned = 0;
    for (const step of steps) {
      const served = this.#devices.get(step.device);
      assert.ok(served !== undefined, `no device ${step.device}`);
      await served.neighbour();
      const before = served.returned;
      await scoped((scope) => this.#session(scope, served, step));
      const made = served.returned - before;
      this.#returned.set(step.device, (this.#returned.get(step.device) ?? 0) + made);
      returned += made;
      await served.settled();
      await served.session((driver) => served.isServed(driver), step.packed);
      await this.#witnesses.after();
    }
    return returned;
  }

  async #session(scope: Scope, served: Served, step: Step): Promise<void> {
    const { packed, indirect, eventIdx, inOrder, inflight, log, iommu } = step;
    const { subject: { queues, forms, config = 0 } } = served;
    const without = mask(
      ...packed ? [] : [ringFeatures.RING_PACKED],
      ...indirect ? [] : [ringFeatures.INDIRECT_DESC],
      ...eventIdx ? [] : [ringFeatures.EVENT_IDX],
      ...inOrder ? [] : [ringFeatures.IN_ORDER],
      ...iommu ? [] : [ringFeatures.ACCESS_PLATFORM],
    );
    const frontEnd = await FrontEnd.connect(served.path, {
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
    const negotiated = (feature: ProtocolFeature): boolean =>
      has(frontEnd.protocolFeatures, protocolFeatures[feature]);
    const memory = new SharedMemory(MEMORY);
    onEnd(scope, () => memory.close());
    await frontEnd.shareMemory(memory);
    if (iommu) {
      for (const iova of [BigInt(memory.guestAddress), memory.userAddress]) {
        await frontEnd.request("IOTLB_MSG", {
          iova,
          size: BigInt(MEMORY),
          userAddress: memory.userAddress,
          permission: 3,
          type: IotlbType.UPDATE,
        });
      }
    }
    const shared: Mapping[] = [];
    let record: Mapping | undefined;
    if (inflight && negotiated("INFLIGHT_SHMFD")) {
      record = await this.#file(scope, "in-flight", async (fd) => {
        const inflight = { mmapSize: BigInt(SIZE), mmapOffset: 0n, numQueues: queues, queueSize: ENTRIES };
        await frontEnd.request("SET_INFLIGHT_FD", inflight, [fd]);
      });
      shared.push(record);
    }
    if (log && negotiated("LOG_SHMFD")) {
      shared.push(
        await this.#file(scope, "log", async (fd) => {
          await frontEnd.request("SET_LOG_BASE", { size: BigInt(SIZE), offset: 0n }, [fd]);
        }),
      );
      await frontEnd.request("SET_FEATURES", frontEnd.features | 1n << BigInt(LOG_ALL));
    }
    const area = ({ guestAddress, bytes }: Piece): Area => ({
      offset: guestAddress - memory.guestAddress,
      length: bytes.length,
    });
    const random = new Random(step.seed);
    const pattern = (queue: number, n: number): Pattern => {
      const known = forms.filter((form) => form.queue === queue);
      // A ring that a device has and that no request is known of gets some all the same.
      const list = known.length > 0 ? known : forms;
      const made = n < list.length ? correct(random, list[n]) : request(random, random.pick(list));
      const bytes = Uint8Array.fromHex(made.bytes).subarray(0, LONGEST);
      return {
        bytes,
        offset: area(memory.allocate(Math.max(1, bytes.length), 2)).offset,
        room: made.room,
      };
    };
    const rings: Ring[] = [];
    const areas: RingAreas[] = [];
    for (let index = 0; index < queues; index++) {
      const ring = new Ring(scope, frontEnd, memory, { index, size: ENTRIES, start: Lane.base(packed) });
      rings.push(ring);
      areas.push({
        descriptors: area(ring.descriptor),
        available: area(ring.available),
        used: area(ring.used),
        tables: area(memory.allocate(16 * GROUP * TABLES, 16)),
        patterns: Array.from({ length: PATTERNS }, (_, n) => pattern(index, n)),
        kick: ring.kick,
      });
      await ring.start();
    }
    const room = area(memory.allocate(ROOM));
    await frontEnd.driverOk();
    const common = { packed, indirect, size: ENTRIES };
    const scribblings: Scribbling[] = [
      {
        ...common,
        address: memory.userAddress,
        byteLength: MEMORY,
        guest: memory.guestAddress,
        rings: areas,
        anything: [room],
        room,
        seed: step.seed,
        state: new SharedArrayBuffer(8),
      },
      ...shared.map(({ address }, i): Scribbling => ({
        ...common,
        address,
        byteLength: SIZE,
        guest: 0,
        rings: [],
        anything: [{ offset: 0, length: RECORDED }],
        room,
        seed: step.seed + i + 1,
        state: new SharedArrayBuffer(8),
      })),
    ];
    const before = served.returned;
    const refused = new Set<Ring>();
    try {
      await Promise.all(scribblings.map(async (scribbling, i) => {
        this.#threads[i].post(scribbling);
        const started = Atomics.waitAsync(new Int32Array(scribbling.state), 1, 0);
        if (started.async) await started.value;
      }));
      const start = performance.now();
      // Where records of requests, or translations, make no sense, nothing at all may come of a session.
      const isIdle = (): boolean => served.returned === before && !inflight && !iommu;
      for (let spent = 0; spent < step.milliseconds || isIdle(); spent = performance.now() - start) {
        assert.ok(spent < PATIENCE, `${step.device} returns nothing`);
        await sleep(1);
        for (const ring of rings) {
          const broken = consume(ring.error) === "rung";
          if (broken) this.#broken++;
          // One that waits for an address that there is not stands still without being broken.
          if (!broken && !iommu && !refused.has(ring)) continue;
          refused.delete(ring);
          await this.#stop(ring);
          // As if nothing were in flight.
          if (record !== undefined) new Uint8Array(record.buffer).fill(0, 0, RECORDED);
          ring.reset();
          await ring.start().catch((error) => {
            // What is in the in-flight buffer makes no sense any more.
            if (error?.name !== "ProtocolError") throw error;
            refused.add(ring);
          });
        }
        if (config > 0) await this.#configure(frontEnd, random, config);
        await this.#witnesses.beside();
      }
    } finally {
      for (const { state } of scribblings) {
        const cell = new Int32Array(state);
        Atomics.store(cell, 0, 1);
        const ended = Atomics.waitAsync(cell, 0, 1, PATIENCE);
        if (ended.async) await ended.value;
      }
    }
    for (const ring of rings) await this.#stop(ring);
    served.checkSecrecy(memory.piece(0, MEMORY).bytes);
  }

  /** Writes to the configuration space, and reads it. The device may refuse; it may not end the session for it. */
  async #configure(frontEnd: FrontEnd, random: Random, length: number): Promise<void> {
    try {
      await frontEnd.writeConfig(random.int(0, length), random.bytes(random.pick([1, 1, 2, 4, 8])));
      await frontEnd.readConfig(random.int(0, length - 1), 1);
    } catch (error) {
      if (!(error instanceof Error) || error.name !== "ProtocolError" || !frontEnd.connected) throw error;
    }
  }

  async #file(scope: Scope, name: string, give: (fd: number) => Promise<void>): Promise<Mapping> {
    const fd = memoryFile(name, SIZE);
    onEnd(scope, () => close(fd));
    const mapping = new Mapping(fd, SIZE);
    onEnd(scope, () => mapping.unmap());
    await give(fd);
    return mapping;
  }

  async #stop(ring: Ring): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`ring ${ring.index} does not stop`)), PATIENCE);
    });
    await Promise.race([ring.stop(), limit]).finally(() => clearTimeout(timer));
  }
}

/** The devices, each once, in an order that follows from the random source. */
function shuffled(random: Random, places: readonly Place[]): string[] {
  const names = places.map(({ name }) => name);
  for (let i = names.length - 1; i > 0; i--) {
    const at = random.int(0, i);
    [names[i], names[at]] = [names[at], names[i]];
  }
  return names;
}

/** A target that attacks some devices, each once in a case. */
export function changing(
  name: string,
  summary: string,
  places: readonly Place[],
  bounds: Pick<Target, "cases" | "least">,
): Target<Step> {
  const make = (random: Random): Step[] => {
    const yes = (): boolean => random.int(0, 1) === 1;
    return shuffled(random, places).map((device) => ({
      device,
      packed: yes(),
      indirect: yes(),
      eventIdx: yes(),
      inOrder: random.int(0, 3) === 0,
      inflight: random.int(0, 3) === 0,
      log: random.int(0, 3) === 0,
      iommu: random.int(0, 5) === 0,
      seed: random.int(0, 1 << 30),
      milliseconds: random.pick([30, 100]),
    }));
  };
  return {
    name,
    summary,
    unit: "requests",
    ...bounds,
    make,
    open: (scope) => open(scope, places, make(new Random(0))),
  };
}

async function open(scope: Scope, places: readonly Place[], first: readonly Step[]): Promise<RaceStand> {
  const folder = tempDir(scope);
  const devices = new Map<string, Served>();
  for (const { name, subject, serving } of places) {
    const served = await Served.open(scope, subject, { ...serving?.(folder), iommu: true });
    await served.letSleep();
    devices.set(name, served);
  }
  const witness = async (): Promise<BlkDriver> => {
    const device = disk(folder);
    onEnd(scope, () => device.close());
    return await (await Scene.open(scope, device)).driver();
  };
  const [written, other] = [await witness(), await witness()];
  const secret = repeated(SECRET, SIZE);
  await other.write(0, secret);
  let seed = 0;
  const threads = Array.from(
    { length: THREADS },
    () => new TestThread(new URL("./scribbling_thread.ts", import.meta.url)),
  );
  onEnd(scope, () => threads.forEach((thread) => thread.end()));
  const stand = new RaceStand(devices, threads, {
    beside: () => verify(written, seed++),
    async after(): Promise<void> {
      assert.equal(
        Buffer.compare(await other.read(0, SIZE), secret),
        0,
        "the disk of another guest is as it was",
      );
    },
  });
  await stand.run(first.map((step) => ({ ...step, inflight: true, log: true, milliseconds: 1 })));
  return stand;
}

/** Memory that changes while every ready device works on it. */
export const changingMemory: Target<Step> = changing(
  "changing-memory",
  "Other threads write into the rings and requests of each device while it is served.",
  PLACES,
  { cases: 6, least: 2000 },
);
