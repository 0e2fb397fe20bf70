/**
 * Rings: what it costs the device to take a request and to return it. The driver, on the same thread, fills the ring
 * before and empties it after, while the clock stands still.
 */

import { cpus } from "node:os";
import { summarize, type Summary } from "./stats.ts";
import { markdownTable } from "./table.ts";

/** Entries of the rings. */
const SIZE = 256;
/** Requests of a measurement. */
const COUNT = 300_000;

/** What is measured. */
export interface RingBenchOptions {
  /** Measurements of each figure. */
  readonly rounds: number;
  /** How long one measurement should take, as a multiple of the usual. */
  readonly scale: number;
  /** Called with a line about the progress. */
  readonly progress: (line: string) => void;
}

/** A ring and its requests. */
export interface RingShape {
  /** Format. */
  readonly packed: boolean;
  /** Entries. */
  readonly size: number;
  /** Descriptors of each request. */
  readonly descriptors: number;
  /** Whether they are in a table. */
  readonly indirect: boolean;
  /** Whether requests in flight are recorded. */
  readonly inflight: boolean;
}

/** One line of the result. */
export interface RingBenchRow extends Omit<RingShape, "packed" | "size"> {
  /** Nanoseconds for each request in a split ring. */
  readonly split: Summary;
  /** The same in a packed ring. */
  readonly packed: Summary;
}

/** One thread that measures. */
class Bench {
  readonly #worker = new Worker(new URL("./ring_trial.ts", import.meta.url), { type: "module" });

  constructor(shape: RingShape) {
    this.#worker.postMessage(shape);
  }

  /** Nanoseconds for each of some requests. */
  run(count: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }: MessageEvent<number>) => resolve(data);
      this.#worker.onerror = ({ message }) => reject(new Error(message));
      this.#worker.postMessage(count);
    });
  }

  end(): void {
    this.#worker.terminate();
  }
}

function shapes(): Omit<RingShape, "packed" | "size">[] {
  const each = (indirect: boolean, inflight: boolean, ...counts: number[]) =>
    counts.map((descriptors) => ({ descriptors, indirect, inflight }));
  return [...each(false, false, 1, 3, 16), ...each(true, false, 1, 3, 16), ...each(false, true, 3)];
}

/** Measures. Both formats take turns, so that what the machine does meanwhile hits both. */
export async function benchRing({ rounds, scale, progress }: RingBenchOptions): Promise<RingBenchRow[]> {
  const rows: RingBenchRow[] = [];
  for (const shape of shapes()) {
    const benches = [false, true].map((packed) => new Bench({ ...shape, packed, size: SIZE }));
    const times: [number[], number[]] = [[], []];
    // The first round does not count: nothing is compiled yet.
    for (let round = -1; round < rounds; round++) {
      for (const [i, bench] of benches.entries()) {
        const time = await bench.run(COUNT * scale);
        if (round >= 0) times[i].push(time);
      }
    }
    for (const bench of benches) bench.end();
    const [split, packed] = times.map(summarize);
    rows.push({ ...shape, split, packed });
    progress(`${place(shape)}: ${ns(split)}, ${ns(packed)}`);
  }
  return rows;
}

function ns({ min, median, max }: Summary): string {
  return `${median.toFixed(0)} (${min.toFixed(0)}–${max.toFixed(0)})`;
}

function place({ descriptors, indirect, inflight }: Omit<RingShape, "packed" | "size">): string {
  return `${descriptors} in ${indirect ? "a table" : "the ring"}${inflight ? ", recorded" : ""}`;
}

/** The result as text. */
export function ringReport(rows: readonly RingBenchRow[], { rounds }: RingBenchOptions): string {
  const table = markdownTable([
    ["descriptors", "split", "packed", "ratio"],
    ...rows.map((row) => [
      place(row),
      ns(row.split),
      ns(row.packed),
      (row.packed.median / row.split.median).toFixed(2),
    ]),
  ]);
  return [
    `Taking and returning a request on the device's side, nanoseconds: median (least–most) of ${rounds} rounds.`,
    `Rings of ${SIZE} entries, filled before, EVENT_IDX; memory above 4 GiB. Recorded: with in-flight tracking.`,
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpus()[0].model}`,
    "",
    table,
  ].join("\n");
}
