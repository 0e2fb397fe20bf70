/**
 * How much one front-end may use.
 *
 * @module
 */

import { MAX_RING_SIZE } from "../virtqueue/split_layout.ts";

/** One bound. */
export interface Limit {
  /** By default. */
  readonly value: number;
  /** The least and the most that it can be set to. */
  readonly range: readonly [least: number, most: number];
  /** What it counts. */
  readonly unit: string;
  /** What it bounds. */
  readonly what: string;
  /** What happens when that is reached. */
  readonly beyond: string;
}

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const TIB = 2 ** 40;
/** What there can be of anything. */
const MANY = 2 ** 31 - 1;

/** Every bound, by its name. */
export const limitTable = {
  sessions: {
    value: 64,
    range: [1, 65536],
    unit: "front-ends",
    what: "Front-ends at once; an exclusive device has one, whatever is said here.",
    beyond: "further ones wait in the socket's queue",
  },
  rings: {
    value: 256,
    range: [1, 256],
    unit: "rings",
    what: "Rings of a device that a front-end may use.",
    beyond: "GET_QUEUE_NUM tells, and messages about further ones are refused",
  },
  ringSize: {
    value: MAX_RING_SIZE,
    range: [1, MAX_RING_SIZE],
    unit: "entries",
    what: "Entries of a ring.",
    beyond: "SET_VRING_NUM is refused",
  },
  regions: {
    value: 509,
    range: [1, 509],
    unit: "regions",
    what: "Regions of guest memory.",
    beyond: "GET_MAX_MEM_SLOTS tells, and further ones are refused",
  },
  memory: {
    value: 8 * TIB,
    range: [4096, 128 * TIB],
    unit: "bytes",
    what: "What is mapped for a front-end: guest memory, dirty log and in-flight buffer together.",
    beyond: "the message that brings more is refused",
  },
  log: {
    value: 256 * MIB,
    range: [1, TIB],
    unit: "bytes",
    what: "Dirty log; one byte for 32 KiB of guest memory.",
    beyond: "SET_LOG_BASE is refused",
  },
  inflight: {
    value: 256 * 32 * (MAX_RING_SIZE + 2),
    range: [64, TIB],
    unit: "bytes",
    what: "In-flight buffer. By default there is room for 256 rings of the largest size.",
    beyond: "SET_INFLIGHT_FD is refused",
  },
  requests: {
    value: 65536,
    range: [1, MANY],
    unit: "requests",
    what: "Requests of a front-end under way in handlers; with worker threads, in each of them. " +
      "Requests that a device keeps by itself (QueueOwner) are bounded by their rings.",
    beyond: "nothing more is taken from its rings until one completes",
  },
  messages: {
    value: 100_000,
    range: [1, MANY],
    unit: "messages a second",
    what: "Messages read from a front-end. As many as in a second may come at once.",
    beyond: "the next is read when its time has come; nothing is lost, and nobody else waits",
  },
  answers: {
    value: 1024,
    range: [1, MANY],
    unit: "requests",
    what: "Requests to the front-end that it has not answered.",
    beyond: "further ones fail",
  },
  iotlb: {
    value: 65536,
    range: [16, MANY],
    unit: "entries",
    what: "Entries of the IOTLB.",
    beyond: "the oldest goes, and is asked for again",
  },
  state: {
    value: 256 * MIB,
    range: [KIB, TIB],
    unit: "bytes",
    what: "Internal state of a device that live migration brings.",
    beyond: "CHECK_DEVICE_STATE says that it failed",
  },
} as const satisfies Readonly<Record<string, Limit>>;

/** Name of a bound. */
export type LimitName = keyof typeof limitTable;

/** All bounds: how much one front-end may use. `docs/limits.md` says what each counts, and what is beyond it. */
export type Limits = { readonly [K in LimitName]: number };

/** The bounds as they are by default. */
export const defaultLimits: Limits = Object.fromEntries(
  Object.entries(limitTable).map(([name, { value }]) => [name, value]),
) as Limits;

/**
 * All bounds, some as given.
 *
 * @throws {RangeError} for one that there is not, or a value that it cannot have
 */
export function limitsOf(given: Partial<Limits> = {}): Limits {
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (!Object.hasOwn(limitTable, name)) {
      throw new RangeError(`there is no limit '${name}', only ${Object.keys(limitTable).join(", ")}`);
    }
    const { range: [least, most], unit } = limitTable[name as LimitName];
    if (!Number.isInteger(value) || value < least || value > most) {
      throw new RangeError(`limit ${name} must be ${least} to ${most} ${unit}, got ${value}`);
    }
  }
  return {
    ...defaultLimits,
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  };
}
