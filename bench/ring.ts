/**
 * Rings: what it costs the device to take a request and to return it. The driver, on the same thread, fills the ring
 * before and empties it after, while the clock stands still.
 */

import { onEnd, type Scope } from "../tests/support/cleanup.ts";
import { alternate } from "./alternate.ts";
import { type Bench, type Findings, type Row, wholeNumbers } from "./bench.ts";
import { perfLacks, perfRing } from "./perf.ts";
import type { RingShape } from "./ring_trial.ts";

/** Entries of the rings. */
const SIZE = 256;
/** Requests of a measurement. */
const COUNT = 300_000;
/** What is counted, where the processor lets perf count. */
const INSTRUCTIONS = "instructions:u";

/** A format of rings. */
interface Format {
  readonly name: string;
  readonly peer: false;
  readonly packed: boolean;
  readonly bare?: boolean;
}

const formats: readonly Format[] = [
  { name: "split", peer: false, packed: false },
  { name: "packed", peer: false, packed: true },
];
/** What they are held against. */
const bare: Format = { name: "split, nothing checked", peer: false, packed: false, bare: true };

type Requests = Omit<RingShape, "packed" | "size">;

/** One thread that measures. */
class Thread {
  readonly #worker = new Worker(new URL("./ring_worker.ts", import.meta.url), { type: "module" });

  constructor(scope: Scope, shape: RingShape) {
    onEnd(scope, () => this.end());
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

function requests(counts: readonly number[]): Requests[] {
  const each = (indirect: boolean, inflight: boolean) =>
    counts.map((descriptors) => ({ descriptors, indirect, inflight }));
  return [...each(false, false), ...each(true, false), ...each(false, true)];
}

function place({ indirect, inflight }: Requests): string {
  return `${indirect ? "table" : "ring"}${inflight ? ", recorded" : ""}`;
}

/** Rings alone. */
export const ring: Bench = {
  summary: "What it costs to take and return a request, split and packed.",
  needs: [],
  options: {
    descriptors: {
      value: "LIST",
      help: "Descriptors of a request, 1 to 256 (default 1,3,16; with --quick 3).",
    },
  },
  examples: [["deno task bench ring", "Time, and instructions where perf can count them."]],
  async measure({ values, rounds, scale, quick, scope, progress }): Promise<Findings> {
    const counts = wholeNumbers("descriptors", String(values.descriptors ?? (quick ? "3" : "1,3,16")));
    const lacks = await perfLacks(INSTRUCTIONS);
    const count = Math.ceil(COUNT * scale);
    const shapes = requests(counts);
    progress.start(shapes.length);
    const rows: Row[] = [];
    for (const shape of shapes) {
      const point = { descriptors: shape.descriptors, in: place(shape) };
      const plain = !shape.indirect && !shape.inflight;
      const threads = (plain ? [...formats, bare] : formats).map((format) => ({
        ...format,
        thread: new Thread(scope, { ...shape, packed: format.packed, bare: format.bare, size: SIZE }),
      }));
      const { time } = await alternate(
        threads,
        rounds,
        async ({ thread }) => ({ time: await thread.run(count) }),
      );
      for (const { thread } of threads) thread.end();
      rows.push({ point, unit: "ns", better: "less", figures: time });
      if (lacks === undefined) {
        const { instructions } = await alternate(formats, rounds, async ({ packed }) => ({
          instructions: await perfRing(scope, INSTRUCTIONS, { ...shape, packed, size: SIZE }, count),
        }));
        rows.push({ point, unit: "instructions", better: "less", figures: instructions });
      }
      progress.step(`${shape.descriptors} descriptors, ${point.in}`);
    }
    return {
      title: `Taking and returning a request on the device's side, rings of ${SIZE} entries.`,
      subjects: [...formats, bare].map(({ name, peer }) => ({ name, peer })),
      rows,
      across: "descriptors",
      notes: lacks === undefined ? [] : [`no instructions were counted: ${lacks}`],
    };
  },
};
