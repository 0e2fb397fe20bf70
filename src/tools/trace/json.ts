/**
 * A trace as JSON, one object per entry. The format is described in `docs/trace.md`; names stay.
 *
 * @module
 */

import { HeaderFlag } from "../../protocol/header.ts";
import { bitNames, hex } from "../describe.ts";
import type { DescriptorInfo } from "./descriptors.ts";
import type { FeatureBits } from "../device_types.ts";
import type { Entry, MessageEntry } from "./entry.ts";
import type { SummaryRow } from "./summary.ts";

/** Bytes of a payload or of a stream that are shown at the most. */
const MOST_BYTES = 4096;

/** Microseconds, with a tenth. */
function micros(ms: number): number {
  return Math.round(ms * 10_000) / 10;
}

/** Numbers of 64 bits as `0x…`, bytes as hexadecimal, nothing as null. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") {
    return value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
  }
  if (value instanceof Uint8Array) return hex(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each)]));
  }
  return value ?? null;
}

function descriptorJson({ kind, name, size, inode, deleted }: DescriptorInfo): unknown {
  return { kind, name, size, inode: inode === undefined ? undefined : String(inode), deleted };
}

function messageJson(entry: MessageEntry, deviceFeatures?: FeatureBits): Record<string, unknown> {
  const { header, name, reply, content, payload, latency, failed } = entry;
  const bits = bitNames(name ?? "", content, deviceFeatures);
  const decoded = content.kind !== undefined && content.problem === undefined;
  return {
    id: header.request,
    name: name ?? null,
    reply,
    needReply: (header.flags & HeaderFlag.NEED_REPLY) !== 0,
    flags: header.flags,
    size: header.size,
    kind: content.kind ?? null,
    ...(decoded ? { payload: plain(content.value) } : { bytes: hex(payload.subarray(0, MOST_BYTES)) }),
    ...(bits === undefined ? {} : { bits }),
    ...(latency === undefined ? {} : { latencyUs: micros(latency) }),
    ...(reply ? { failed } : {}),
  };
}

/** An entry as a value that `JSON.stringify` takes. */
export function entryJson(entry: Entry, deviceFeatures?: FeatureBits): Record<string, unknown> {
  const common = { type: entry.type, session: entry.session, timeUs: micros(entry.time) };
  switch (entry.type) {
    case "session":
      return entry.event === "start"
        ? {
          ...common,
          event: "start",
          date: new Date().toISOString(),
          frontEnd: entry.peers?.["front-end"] ?? null,
          backEnd: entry.peers?.["back-end"] ?? null,
        }
        : { ...common, event: "end", left: entry.left ?? null };
    case "note":
      return { ...common, channel: entry.channel, level: entry.level, text: entry.text };
    default:
      return {
        ...common,
        channel: entry.channel,
        from: entry.from,
        ...(entry.type === "message" ? messageJson(entry, deviceFeatures) : {
          size: entry.bytes.length,
          bytes: hex(entry.bytes.subarray(0, MOST_BYTES)),
        }),
        descriptors: entry.descriptors.map(descriptorJson),
        violations: entry.violations,
        outcome: entry.outcome,
      };
  }
}

/** A summary as a value that `JSON.stringify` takes. */
export function summaryJson(rows: readonly SummaryRow[]): Record<string, unknown> {
  return {
    type: "summary",
    messages: rows.map(({ latency, ...row }) => ({
      ...row,
      ...(latency === undefined
        ? {}
        : { minUs: micros(latency.min), medianUs: micros(latency.median), maxUs: micros(latency.max) }),
    })),
  };
}
