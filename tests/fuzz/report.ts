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
  /** URL of the module whose default export the target is, when it is not in the list. */
  readonly module?: string;
  /** Seed of the run. */
  readonly seed: number;
  /** First case. */
  readonly from: number;
  /** Cases; until the time is up, or for ever, when it is left out. */
  readonly cases?: number;
  /** The time after which no further case begins, milliseconds. */
  readonly milliseconds?: number;
  /** How long a case may take, milliseconds; a minute by default. */
  readonly limit?: number;
  /** How long what a case has opened may take to go, milliseconds; 20 seconds by default. */
  readonly patience?: number;
  /** How often memory is looked at, milliseconds; every two seconds by default. */
  readonly lookEvery?: number;
  /** The steps to take of each case; all when it is left out. */
  readonly steps?: readonly number[];
}
