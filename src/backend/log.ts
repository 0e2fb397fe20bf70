/**
 * What a server has to say.
 *
 * @module
 */

import { type BrokenRing, brokenRingLines } from "./broken_ring.ts";

/** How serious an entry is, from the least to the most. */
export type LogLevel = "debug" | "info" | "warning" | "error";

/** The levels, from the least serious to the most. */
export const logLevels: readonly LogLevel[] = ["debug", "info", "warning", "error"];

/** What happens, by the name that records have in `event`. */
export const logEvents = {
  "session.connected": "A front-end has connected.",
  "session.ended": "A front-end has left.",
  "session.failed": "A session was ended because of what its front-end did.",
  "accept.failed": "A front-end that waits could not be taken; it is tried again.",
  "accept.refused": "A front-end was not served, as its user may not connect.",
  "takeover.done": "Another process has taken over, or this one has.",
  "takeover.failed": "Another process could not take over; this one serves on.",
  "sandbox": "What the process can no longer do.",
  "message": "A message of the control socket (`--trace`).",
  "message.refused": "A message was answered with an error.",
  "message.failed": "A message could not be done, where its answer does not end the session.",
  "channel.failed": "The back-end channel is closed, or the front-end did not take what was sent on it.",
  "iotlb.slow": "The front-end does not say what an address behind the IOMMU means; a ring waits.",
  "ring.request_failed": "A handler failed; its request was completed all the same.",
  "ring.broken": "A ring stands still until the driver sets it up anew. `dump` says what was found.",
  "device.not_ready": "The device is not ready; front-ends wait.",
  "device.reset_failed": "The device could not be reset in all threads.",
  "device": "Something of the device itself: its file, its network, its other end.",
} as const;

/** Name of what happens. */
export type LogEvent = keyof typeof logEvents;

/** What a field of a record can be. */
export type LogValue = string | number | boolean;

/** What an entry is about. */
export interface LogAbout {
  /** What happens. */
  readonly event: LogEvent;
  /** Name of the device. */
  readonly device?: string;
  /** Number of the session: 1 for the server's first front-end. */
  readonly session?: number;
  /** Number of the ring in the device. */
  readonly ring?: number;
  /** What else belongs to it. */
  readonly fields?: Readonly<Record<string, LogValue>>;
  /** With `ring.broken`: what was found. */
  readonly dump?: BrokenRing;
}

/**
 * Takes a log entry: one line of text, with the error that is behind it when there is one, and what it is about where that
 * is known. {@link logRecord} makes one thing of it.
 */
export type Log = (level: LogLevel, text: string, error?: unknown, about?: LogAbout) => void;

/** An entry as a whole. */
export interface LogRecord extends LogAbout {
  /** When, milliseconds since 1970. */
  readonly time: number;
  /** How serious. */
  readonly level: LogLevel;
  /** What happened, for people. */
  readonly text: string;
  /** The error that is behind it. */
  readonly error?: unknown;
}

/** What a {@link Log} was called with, as one thing. Without `about` it is of the device. */
export function logRecord(
  level: LogLevel,
  text: string,
  error?: unknown,
  about: LogAbout = { event: "device" },
  time: number = Date.now(),
): LogRecord {
  return { time, level, text, error, ...about };
}

/** The text of anything thrown. */
export function errorText(error: unknown): string {
  return error instanceof Error
    ? `${error.name === "Error" ? "" : `${error.name}: `}${error.message}`
    : String(error);
}

/** A record for people: a line, and more of them, indented, for a ring that broke. */
export function recordText({ level, text, error, dump }: LogRecord): string {
  const line = `${level}: ${text}${error === undefined ? "" : `: ${errorText(error)}`}`;
  if (dump === undefined) return line;
  return [line, ...brokenRingLines(dump).map((each) => `  ${each}`)].join("\n");
}

/** A record for programs: a line of JSON. Absent fields are left out; the time is that of ISO 8601. */
export function recordJson({ time, level, event, error, ...rest }: LogRecord): string {
  return JSON.stringify({
    time: new Date(time).toISOString(),
    level,
    event,
    ...rest,
    error: error === undefined ? undefined : errorFields(error),
  });
}

/** Name, text and own fields, such as the number of a system error. */
function errorFields(error: unknown): Record<string, LogValue> {
  if (!(error instanceof Error)) return { message: String(error) };
  const fields = Object.entries(error).filter(([, value]) =>
    ["string", "number", "boolean"].includes(typeof value)
  );
  return { name: error.name, message: error.message, ...Object.fromEntries(fields) };
}

/** Warnings and errors on the standard error output. */
export const logToStderr: Log = (level, text, error, about) => {
  if (level !== "warning" && level !== "error") return;
  // deno-lint-ignore no-console
  console.error(`vhost-user: ${recordText(logRecord(level, text, error, about))}`);
};
