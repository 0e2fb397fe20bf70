/**
 * What the process that runs cases tells the one that watches it: lines of JSON.
 *
 * @module
 */

/** A line. */
export type Report =
  /** A case begins; everything before it was well. */
  | { readonly kind: "case"; readonly index: number; readonly units: number; readonly resident: number }
  /** All cases were well. */
  | {
    readonly kind: "end";
    readonly cases: number;
    readonly units: number;
    readonly notes: string;
    /** Bytes of memory at the end, and what it had grown by since the run had warmed up. */
    readonly resident: number;
    readonly grown: number;
  };

/** What a process that runs cases is asked to do. */
export interface Order {
  /** Name of the target. */
  readonly target: string;
  /** Seed of the run. */
  readonly seed: number;
  /** First case. */
  readonly from: number;
  /** Cases; until the time is up, or for ever, when it is left out. */
  readonly cases?: number;
  /** The time after which no further case begins, milliseconds. */
  readonly milliseconds?: number;
  /** The steps to take of each case; all when it is left out. */
  readonly steps?: readonly number[];
}
