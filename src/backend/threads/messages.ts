/**
 * What the session's thread and those that run rings say to each other.
 *
 * @module
 */

import { OsError } from "../../../ffi/os_error.ts";
import { MemoryError } from "../../memory/region.ts";
import { FieldError, ProtocolError } from "../../protocol/error.ts";
import type { Endianness } from "../../protocol/struct.ts";
import type { BrokenRing } from "../broken_ring.ts";
import type { Limits } from "../limits.ts";
import { RingError } from "../../virtqueue/ring.ts";

/** How a thread makes its device. */
export interface DeviceSource {
  /** URL of a module; its default export is a device, or a function that makes one. */
  readonly module: string;
  /** What the function is called with. */
  readonly options?: unknown;
}

/** A call of a method, of a ring or of what holds the rings of a session. */
export interface Call {
  readonly kind: "call";
  readonly session: number;
  readonly id: number;
  /** Number of the ring; -1 for the session. */
  readonly ring: number;
  readonly method: string;
  readonly args: unknown[];
}

/** How a call has ended. */
export interface Outcome {
  readonly value?: unknown;
  readonly error?: ErrorText;
}

/** To a thread that runs rings. */
export type ToThread =
  | {
    readonly kind: "start";
    readonly device: DeviceSource;
    /** Counts the messages that were sent. */
    readonly sent: SharedArrayBuffer;
    /** An eventfd that rings after each message. It stays the sender's. */
    readonly bell: number;
    readonly pollCeiling: number;
    /** Whether the event loop has to stay free. */
    readonly eventLoop: boolean;
    /** Where the thread's reactor counts. */
    readonly counters: SharedArrayBuffer;
  }
  | {
    readonly kind: "open";
    readonly session: number;
    readonly id: number;
    readonly rings: readonly RingSeat[];
    readonly limits: Limits;
  }
  | Call
  | { readonly kind: "answer"; readonly session: number; readonly id: number; readonly outcome: Outcome }
  | { readonly kind: "end" };

/** A ring that a thread is to run. */
export interface RingSeat {
  readonly index: number;
  /** Where it counts. */
  readonly counters: SharedArrayBuffer;
}

/** What is known of a ring outside its thread. */
export interface RingStatus {
  readonly index: number;
  readonly started: boolean;
  readonly active: boolean;
  readonly endianness: Endianness;
  /** Counts the times that it came to wait for an address; 0 while it does not. */
  readonly miss: number;
}

/** From a thread that runs rings. */
export type FromThread =
  | { readonly kind: "started"; readonly outcome: Outcome }
  | {
    readonly kind: "answer";
    readonly session: number;
    readonly id: number;
    readonly outcome: Outcome;
    readonly rings: readonly RingStatus[];
  }
  | RingEvent
  /** A region is not used any more. */
  | { readonly kind: "released"; readonly session: number; readonly region: number }
  /** The device asks its front-end for something. */
  | {
    readonly kind: "request";
    readonly session: number;
    readonly id: number;
    readonly name: string;
    readonly payload: unknown;
    readonly fds: readonly number[];
  }
  | { readonly kind: "ended" };

/** Something has happened to a ring. */
export type RingEvent =
  & { readonly kind: "event"; readonly session: number; readonly ring: number }
  & (
    | { readonly event: "request failed" | "memory lost"; readonly error: ErrorText }
    /** Answered when the device status says so. */
    | { readonly event: "broken"; readonly error: ErrorText; readonly dump?: BrokenRing; readonly id: number }
    | { readonly event: "running" | "rewound" }
    | { readonly event: "missing"; readonly iova: number; readonly access: number; readonly miss: number }
    | { readonly event: "notify"; readonly message: "VRING_CALL" | "VRING_ERR" }
  );

/** An error on its way from one thread to another. */
export interface ErrorText {
  readonly name: string;
  readonly message: string;
  /** Its own fields, such as the number of a system error. */
  readonly fields: Readonly<Record<string, string | number>>;
}

const CLASSES: Readonly<Record<string, { readonly prototype: Error }>> = {
  FieldError,
  MemoryError,
  OsError,
  ProtocolError,
  RangeError,
  RingError,
  TypeError,
};

/** Anything thrown, as it is sent. */
export function packError(error: unknown): ErrorText {
  if (!(error instanceof Error)) return { name: "Error", message: String(error), fields: {} };
  const fields = Object.entries(error).filter(([key, value]) =>
    key !== "name" && (typeof value === "string" || typeof value === "number")
  );
  return { name: error.name, message: error.message, fields: Object.fromEntries(fields) };
}

/** The error as it was, of its class where that is one of ours. */
export function unpackError({ name, message, fields }: ErrorText): Error {
  const error = new Error(message);
  const known = Object.hasOwn(CLASSES, name) ? CLASSES[name] : undefined;
  if (known !== undefined) Object.setPrototypeOf(error, known.prototype);
  return Object.assign(error, fields, { name });
}

/** The result of a call, or throws what it has thrown. */
export function unpack({ value, error }: Outcome): unknown {
  if (error !== undefined) throw unpackError(error);
  return value;
}
