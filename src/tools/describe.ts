/**
 * Messages as text for people.
 *
 * @module
 */

import { featureNames, protocolFeatures, ringFeatures } from "../protocol/features.ts";
import { HeaderFlag } from "../protocol/header.ts";
import { frontendMessages, type MessageRow, type MessageTable } from "../protocol/messages.ts";
import { codecOf } from "../protocol/payloads.ts";
import type { Message } from "../transport/connection.ts";

function show(value: unknown): string {
  if (typeof value === "bigint") return `0x${value.toString(16)}`;
  if (value instanceof Uint8Array) {
    const hex = Array.from(value.subarray(0, 32), (byte) => byte.toString(16).padStart(2, "0")).join("");
    return `${value.length} bytes ${hex}${value.length > 32 ? "…" : ""}`;
  }
  if (Array.isArray(value)) return `[${value.map(show).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    return Object.entries(value).map(([name, each]) => `${name}=${show(each)}`).join(" ");
  }
  return value === undefined ? "" : String(value);
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
  const parts = [direction === "in" ? "→" : "←", name];
  if (reply) parts.push("reply");
  if (row !== undefined) {
    const kind = !reply ? row.payload : row.reply === "ack" || row.reply === "always ack" ? "u64" : row.reply;
    try {
      const value = codecOf(kind).decode(payload);
      const names = name.endsWith("PROTOCOL_FEATURES") ? protocolFeatures : ringFeatures;
      const features = name.endsWith("FEATURES") && typeof value === "bigint" &&
        (!reply || row.reply === "u64");
      parts.push(features ? `${show(value)} ${featureNames(value, names).join(" ")}` : show(value));
    } catch {
      parts.push(`payload of ${payload.length} bytes that cannot be decoded: ${show(payload)}`);
    }
  } else if (payload.length > 0) {
    parts.push(show(payload));
  }
  if (fds.length > 0) parts.push(`+${fds.length} fd`);
  if ((header.flags & HeaderFlag.NEED_REPLY) !== 0) parts.push("(need_reply)");
  return parts.filter((part) => part !== "").join(" ");
}
