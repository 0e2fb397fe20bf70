/** What the thread is to do. */
export interface DriverTask {
  readonly packed: boolean;
  readonly size: number;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly tableSize: number;
  /** Requests to send. */
  readonly count: number;
  /** Doorbells, as {@link Bell} says. */
  readonly bells: SharedArrayBuffer;
}

/** Places in {@link DriverTask.bells}: counters of rings at the device and at the driver, and whether the driver is done. */
export const Bell = { KICK: 0, CALL: 1, DONE: 2 } as const;

/** What the thread says before it starts: where the ring is. */
export interface DriverPlace {
  readonly fd: number;
  readonly byteLength: number;
  readonly guestAddress: number;
  /** Guest addresses of the parts. */
  readonly descriptor: number;
  readonly available: number;
  readonly used: number;
}

/** How long somebody may sleep while there is something to do, ms. */
export const PATIENCE = 5000;

/** What the device answers. */
export function answerTo(question: number): number {
  return (Math.imul(question, 0x9e37_79b1) ^ 0x5bd1_e995) >>> 0;
}
