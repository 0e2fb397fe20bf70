import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";

/** What is held at a moment. */
interface Held {
  /** Descriptors. */
  readonly descriptors: number;
  /** Mappings of memory that is shared with somebody. */
  readonly mappings: number;
  /** Bytes that are alive in the heap, after garbage was collected; promises, timers and closures are among them. */
  readonly heap: number;
  /** Bytes in memory. */
  readonly resident: number;
  /** Descriptors of other processes. */
  readonly others: number;
}

/** How much each may be more at the end than it was at the start, when everything had happened once. */
const SLACK: Held = { descriptors: 0, mappings: 0, heap: 6 << 20, resident: 64 << 20, others: 0 };

const MIB = 1 << 20;

/** Counts, over time, what must not grow. */
export class Holdings {
  readonly #series: Held[] = [];

  /** Counts, of this process and others. */
  count(pids: readonly number[]): void {
    // Twice: what a finalizer lets go is collected by the next.
    const { gc } = globalThis as { gc?: () => void };
    for (let i = 0; i < 2; i++) gc?.();
    const { heapUsed, rss } = process.memoryUsage();
    const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
    this.#series.push({
      descriptors: descriptors("self"),
      mappings: maps.filter((line) => line.includes("memfd:vhost-user")).length,
      heap: gc === undefined ? 0 : heapUsed,
      resident: rss,
      others: pids.reduce((sum, pid) => sum + descriptors(pid), 0),
    });
  }

  /** The newest, in words. */
  get last(): string {
    const held = this.#series.at(-1);
    return held === undefined ? "nothing counted" : words(held);
  }

  /** The first that counts and the last, in words. */
  get summary(): string {
    return `${words(this.#first)} at first; ${this.last} at last; counted ${this.#series.length} times`;
  }

  /** The most of each in the first third: things that are made once are made by then. */
  get #first(): Held {
    const early = this.#series.slice(0, Math.max(1, Math.ceil(this.#series.length / 3)));
    const most = (of: keyof Held): number => Math.max(...early.map((held) => held[of]));
    return {
      descriptors: most("descriptors"),
      mappings: most("mappings"),
      heap: most("heap"),
      resident: most("resident"),
      others: most("others"),
    };
  }

  /** What has grown. */
  complaints(): string[] {
    const last = this.#series.at(-1);
    if (last === undefined) return ["nothing was counted"];
    const first = this.#first;
    return (Object.keys(SLACK) as (keyof Held)[]).flatMap((of) =>
      last[of] > first[of] + SLACK[of] ? [`${of}: ${first[of]} at first, ${last[of]} at last`] : []
    );
  }
}

function descriptors(pid: number | "self"): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

function words({ descriptors, mappings, heap, resident, others }: Held): string {
  return `${descriptors} descriptors (${others} of others), ${mappings} mappings, ` +
    `${(heap / MIB).toFixed(1)} MiB of heap, ${Math.round(resident / MIB)} MiB resident`;
}
