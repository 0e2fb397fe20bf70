/**
 * Finds what is read twice. A guest may change its memory at any time, so whoever reads a value, checks it and reads it again
 * has checked something else: each byte of a request is to be read once.
 *
 * @module
 */

import { Segments } from "../../../src/memory/segments.ts";

/** Reads of numbers and bytes, with their lengths; views and addresses are for data, which nobody checks. */
const READS = { getUint8: 1, getUint16: 2, getUint32: 4, getUint64: 8, copyTo: 0 } as const;

/** Watches all reads of requests in this process. */
export class SingleFetch {
  /** What was read twice, and by whom. */
  readonly found: string[] = [];
  readonly #read = new WeakMap<Segments, [from: number, to: number][]>();
  #depth = 0;

  /** From now on, until the process ends. */
  constructor() {
    const prototype = Segments.prototype as unknown as Record<string, (...args: unknown[]) => unknown>;
    const { clear } = prototype;
    const read = this.#read;
    prototype.clear = function (this: Segments): void {
      read.delete(this);
      clear.call(this);
    };
    for (const [name, length] of Object.entries(READS)) {
      const original = prototype[name];
      const note = (segments: Segments, from: number, to: number): void => this.#note(segments, from, to);
      const nested = (by: number): number => this.#depth += by;
      prototype[name] = function (this: Segments, ...args: unknown[]): unknown {
        const outermost = nested(1) === 1;
        try {
          const result = original.apply(this, args);
          const [from, to] = name === "copyTo"
            ? [(args[1] ?? 0) as number, (args[1] ?? 0) as number + (result as number)]
            : [args[0] as number, args[0] as number + length];
          if (outermost) note(this, from, to);
          return result;
        } finally {
          nested(-1);
        }
      };
    }
  }

  #note(segments: Segments, from: number, to: number): void {
    const ranges = this.#read.get(segments);
    if (ranges === undefined) return void this.#read.set(segments, [[from, to]]);
    const twice = ranges.find(([start, end]) => from < end && start < to);
    ranges.push([from, to]);
    if (twice === undefined) return;
    const where = new Error().stack?.split("\n").find((line) =>
      line.includes("/src/") && !line.includes("/src/memory/")
    );
    this.found.push(`bytes ${from} to ${to} were read before as part of ${twice}: ${where?.trim()}`);
  }
}
