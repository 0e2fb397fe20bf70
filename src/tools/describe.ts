/**
 * Messages as text for people.
 *
 * @module
 */

import { FieldError } from "../protocol/error.ts";
import { DeviceStatus, featureNames, protocolFeatures, ringFeatures } from "../protocol/features.ts";
import { HeaderFlag } from "../protocol/header.ts";
import { frontendMessages, type MessageRow, type MessageTable } from "../protocol/messages.ts";
import { codecOf, type PayloadTypes } from "../protocol/payloads.ts";
import type { Message } from "../transport/connection.ts";

/** Kind of payload; `"ack"` is the u64 of an acknowledgement. */
export type ContentKind = keyof PayloadTypes | "ack";

/** What a payload says. */
export interface Content {
  /** Its kind, or `undefined` for a message that the table does not have. */
  readonly kind: ContentKind | undefined;
  /** The value, where it could be decoded. */
  readonly value: unknown;
  /** Why it could not be decoded. */
  readonly problem: string | undefined;
}

/** The kind of payload that a message of a row has: the request, its answer, or its answer during postcopy. */
export function contentKind(row: MessageRow, part: "request" | "reply" | "postcopy reply"): ContentKind {
  if (part === "request") return row.payload;
  if (part === "postcopy reply" && row.postcopyReply !== undefined) return row.postcopyReply;
  return row.reply === "always ack" ? "ack" : row.reply;
}

/** Decodes a payload. Never throws: what is wrong with it is part of the result. */
export function readContent(kind: ContentKind | undefined, payload: Uint8Array): Content {
  if (kind === undefined) return { kind, value: undefined, problem: undefined };
  const codec = codecOf(kind === "ack" ? "u64" : kind);
  const { minimum, maximum } = codec;
  if (payload.length < minimum || payload.length > maximum) {
    const expected = minimum === maximum ? `${minimum}` : `${minimum} to ${maximum}`;
    return { kind, value: undefined, problem: `payload: expected ${expected} bytes, got ${payload.length}` };
  }
  try {
    return { kind, value: codec.decode(payload), problem: undefined };
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    return { kind, value: undefined, problem: error.message };
  }
}

const statusBits = Object.fromEntries(
  Object.entries(DeviceStatus).map(([name, value]) => [name, Math.log2(value)]),
);

/**
 * The names of the bits of a value that is a mask.
 *
 * @param name of the message
 * @param deviceFeatures bits of the device type, when it is known
 * @returns `undefined` when the value is no mask
 */
export function bitNames(
  name: string,
  { kind, value }: Content,
  deviceFeatures: Readonly<Record<string, number>> = {},
): string[] | undefined {
  if (kind !== "u64" || typeof value !== "bigint") return undefined;
  if (name.endsWith("PROTOCOL_FEATURES")) return featureNames(value, protocolFeatures);
  if (name.endsWith("FEATURES")) return featureNames(value, { ...ringFeatures, ...deviceFeatures });
  if (name.endsWith("_STATUS")) return featureNames(value, statusBits);
  return undefined;
}

/** Bytes in hexadecimal, no more than a number of them. */
export function hex(bytes: Uint8Array, most = Infinity): string {
  const shown = Array.from(bytes.subarray(0, most), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return bytes.length > most ? `${shown}…` : shown;
}

function show(value: unknown): string {
  if (typeof value === "bigint") return `0x${value.toString(16)}`;
  if (value instanceof Uint8Array) {
    if (value.length > 8 && value.every((byte) => byte === 0)) return `${value.length} zero bytes`;
    return `${value.length} bytes ${hex(value, 32)}`;
  }
  if (Array.isArray(value)) return `[${value.map(show).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    return Object.entries(value).map(([name, each]) => `${name}=${show(each)}`).join(" ");
  }
  return value === undefined ? "" : String(value);
}

/**
 * What a payload says, in words.
 *
 * @param name of the message
 * @param deviceFeatures bits of the device type, when it is known
 */
export function contentText(
  name: string,
  content: Content,
  payload: Uint8Array,
  deviceFeatures?: Readonly<Record<string, number>>,
): string {
  const { kind, value, problem } = content;
  if (problem !== undefined) return `payload that cannot be decoded: ${show(payload)}`;
  if (kind === undefined) return payload.length === 0 ? "" : show(payload);
  if (kind === "ack") return value === 0n ? "ok" : `failed (${show(value)})`;
  const names = bitNames(name, content, deviceFeatures);
  if (names !== undefined) return [show(value), ...names].join(" ");
  if (kind === "u64" && typeof value === "bigint" && value >= 10n) return `${show(value)} (${value})`;
  return show(value);
}

/** Parts of a line as one; empty ones are left out. */
export function joinParts(parts: readonly string[]): string {
  return parts.filter((part) => part !== "").join(" ");
}

/** A message in a line: direction, name, fields, number of descriptors. */
export function describeMessage(
  direction: "in" | "out",
  message: Message,
  table: MessageTable = frontendMessages,
): string {
  const { name, header, payload, fds } = message;
  const reply = (header.flags & HeaderFlag.REPLY) !== 0;
  const row: MessageRow | undefined = table[name];
  const kind = row === undefined ? undefined : contentKind(row, reply ? "reply" : "request");
  return joinParts([
    direction === "in" ? "→" : "←",
    name,
    reply ? "reply" : "",
    contentText(name, readContent(kind, payload), payload),
    fds.length > 0 ? `+${fds.length} fd` : "",
    (header.flags & HeaderFlag.NEED_REPLY) !== 0 ? "(need_reply)" : "",
  ]);
}
