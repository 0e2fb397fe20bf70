/**
 * Rings: what it costs the device to take a request and to return it. The driver, on the same thread, fills the ring
 * before and empties it after, while the clock stands still.
 */

import { cpus } from "node:os";
import { PackedDriverRing } from "../src/frontend/packed_driver_ring.ts";
import { type Piece, SharedMemory } from "../src/frontend/shared_memory.ts";
import { SplitDriverRing } from "../src/frontend/split_driver_ring.ts";
import { GuestMemory } from "../src/memory/guest_memory.ts";
import { PackedRing } from "../src/virtqueue/packed_ring.ts";
import type { Ring, RingPart } from "../src/virtqueue/ring.ts";
import { PACKED_START } from "../src/virtqueue/packed_layout.ts";
import { inflightRegionSize } from "../src/virtqueue/inflight.ts";
import { SplitRing } from "../src/virtqueue/split_ring.ts";
import { summarize, type Summary } from "./stats.ts";
import { markdownTable } from "./table.ts";

/** Entries of the rings. */
const SIZE = 256;

/** What is measured. */
export interface RingBenchOptions {
  /** Measurements of each figure. */
  readonly rounds: number;
  /** How long one measurement should take, as a multiple of the usual. */
  readonly scale: number;
}

/** One line of the result: one shape of requests. */
export interface RingBenchRow {
  /** Descriptors of each request. */
  readonly descriptors: number;
  /** Whether they are in a table. */
  readonly indirect: boolean;
  /** Whether requests in flight are recorded. */
  readonly inflight: boolean;
  /** Nanoseconds for each request. */
  readonly split: Summary;
  /** The same, in a packed ring. */
  readonly packed: Summary;
}

interface Shape {
  readonly descriptors: number;
  readonly indirect: boolean;
  readonly inflight: boolean;
}

/** Drives one ring with requests of one shape. */
export class Trial {
  readonly #fill: () => number;
  readonly #device: Ring;
  readonly #empty: () => void;
  readonly #close: () => void;

  constructor(packed: boolean, { descriptors, indirect, inflight }: Shape) {
    const shared = new SharedMemory(2 * 2 ** 20);
    const memory = new GuestMemory();
    memory.replace([{
      guestAddress: shared.guestAddress,
      size: shared.byteLength,
      userAddress: Number(shared.userAddress),
      mmapOffset: 0,
      fd: shared.fd,
    }]);
    const region = memory.regions[0];
    const part = (piece: Piece): RingPart => ({
      region,
      offset: piece.guestAddress - region.guestAddress,
    });
    const options = { size: SIZE, eventIdx: true, tableSize: indirect ? descriptors : 0 };
    const driver = packed ? new PackedDriverRing(shared, options) : new SplitDriverRing(shared, options);
    const place = {
      descriptor: part(driver.descriptor),
      available: part(driver.available),
      used: part(driver.used),
    };
    const ringOptions = {
      eventIdx: true,
      indirect,
      base: packed ? PACKED_START : 0,
      inflight: inflight ? shared.allocate(inflightRegionSize(packed, SIZE), 64).bytes : undefined,
    };
    this.#device = packed
      ? new PackedRing(memory, SIZE, place, ringOptions)
      : new SplitRing(memory, SIZE, place, ringOptions);
    // A header, data and a status, as disks have it.
    const buffers = Array.from({ length: descriptors }, () => {
      const { guestAddress } = shared.allocate(512);
      return { guestAddress, length: 512 };
    });
    const [readable, writable] = [buffers.slice(0, 1), buffers.slice(1)];
    this.#fill = () => {
      let count = 0;
      while (driver.add(readable, writable) >= 0) count++;
      driver.publish();
      return count;
    };
    this.#empty = () => {
      while (driver.take() !== null);
      driver.arm();
    };
    this.#close = () => {
      memory.clear();
      shared.close();
    };
  }

  /** Takes and returns everything. Apart, so that what is measured is compiled by itself. */
  #work(): void {
    const device = this.#device;
    device.suppress();
    for (let chain = device.pop(); chain !== null; chain = device.pop()) {
      chain.written = 1;
      device.push(chain);
    }
    device.publish();
    device.arm();
  }

  /** Nanoseconds for each of about `count` requests. */
  run(count: number): number {
    let done = 0;
    let time = 0;
    while (done < count) {
      done += this.#fill();
      const start = performance.now();
      this.#work();
      time += performance.now() - start;
      this.#empty();
    }
    return time * 1e6 / done;
  }

  close(): void {
    this.#close();
  }
}

function shapes(): Shape[] {
  const all: Shape[] = [];
  for (const indirect of [false, true]) {
    for (const descriptors of [1, 3, 16]) all.push({ descriptors, indirect, inflight: false });
  }
  return [...all, { descriptors: 3, indirect: false, inflight: true }];
}

/** Measures. */
export function benchRing({ rounds, scale }: RingBenchOptions): RingBenchRow[] {
  return shapes().map((shape) => {
    const trials = [new Trial(false, shape), new Trial(true, shape)];
    const times: number[][] = [[], []];
    // The first measurement of each is not kept: nothing is compiled yet.
    for (let round = -1; round < rounds; round++) {
      trials.forEach((trial, i) => {
        const time = trial.run(300_000 * scale);
        if (round >= 0) times[i].push(time);
      });
    }
    for (const trial of trials) trial.close();
    return { ...shape, split: summarize(times[0]), packed: summarize(times[1]) };
  });
}

/** The result as text. */
export function ringReport(rows: readonly RingBenchRow[], { rounds }: RingBenchOptions): string {
  const ns = ({ min, median, max }: Summary): string =>
    `${median.toFixed(0)} (${min.toFixed(0)}–${max.toFixed(0)})`;
  const table = markdownTable([
    ["descriptors", "in", "recorded", "split", "packed", "ratio"],
    ...rows.map(({ descriptors, indirect, inflight, split, packed }) => [
      String(descriptors),
      indirect ? "a table" : "the ring",
      inflight ? "yes" : "no",
      ns(split),
      ns(packed),
      (packed.median / split.median).toFixed(2),
    ]),
  ]);
  return [
    `Taking and returning a request on the device's side, nanoseconds: median (least–most) of ${rounds} rounds.`,
    `Rings of ${SIZE} entries, filled before; EVENT_IDX. Recorded: with in-flight tracking.`,
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpus()[0].model}`,
    "",
    table,
  ].join("\n");
}
