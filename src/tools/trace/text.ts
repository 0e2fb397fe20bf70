/**
 * A trace as lines for people.
 *
 * @module
 */

import { HeaderFlag } from "../../protocol/header.ts";
import { contentText, hex, joinParts } from "../describe.ts";
import { descriptorText, safeText } from "./descriptors.ts";
import type { FeatureBits } from "../device_types.ts";
import { type Paint, plain } from "../paint.ts";
import type { Channel, Entry, MessageEntry, RawEntry } from "./entry.ts";
import type { Outcome, Side } from "./wire.ts";

/** How lines are made. */
export interface TextOptions {
  /** Feature bits of the device type, when it is known. */
  readonly deviceFeatures?: FeatureBits;
  /** Colours: errors red, warnings yellow, the frame of it dim. None by default. */
  readonly paint?: Paint;
}

/** Milliseconds, or microseconds where there are few. */
export function durationText(ms: number): string {
  return ms < 1 ? `${Math.round(ms * 1000)} µs` : `${ms.toFixed(ms < 100 ? 1 : 0)} ms`;
}

/** The lines of an entry. */
export function entryLines(entry: Entry, options: TextOptions): string[] {
  const { paint = plain } = options;
  const prefix = (mark: string) =>
    `${paint("dim", `#${entry.session} ${entry.time.toFixed(3).padStart(10)} ms`)} ${mark}`;
  switch (entry.type) {
    case "session":
      return [`${prefix("·")} ${sessionText(entry)}`];
    case "note": {
      const text = joinParts([channelText(entry.channel), safeText(entry.text)]);
      return [
        entry.level === "info"
          ? `${prefix("·")} ${text}`
          : `${prefix("!")} ${paint(entry.level === "error" ? "red" : "yellow", text)}`,
      ];
    }
    default: {
      const text = entry.type === "message" ? messageText(entry, options) : rawText(entry);
      const failed = entry.type === "message" && entry.failed;
      return [
        `${prefix(arrow(entry.from))} ${failed ? paint("red", text) : text}`,
        ...entry.violations.map((each) => `${prefix("!")} ${paint("red", safeText(each))}`),
      ];
    }
  }
}

function arrow(from: Side): string {
  return from === "front-end" ? "→" : "←";
}

function channelText(channel: Channel): string {
  return channel === "main" ? "" : "[channel]";
}

function sessionText(entry: Entry & { type: "session" }): string {
  if (entry.event === "end") {
    return `the session is over: ${entry.left === undefined ? "ended here" : `the ${entry.left} has left`}`;
  }
  const who = (side: Side) => {
    const peer = entry.peers?.[side];
    return peer === undefined ? side : `${side} (process ${peer.pid}, user ${peer.uid})`;
  };
  return `a session begins: ${who("front-end")}, ${who("back-end")}`;
}

function outcomeText(outcome: Outcome): string {
  if (outcome === "sent") return "";
  return outcome === "waiting"
    ? "(waits: the other side does not read)"
    : "(not delivered: the other side has left)";
}

function messageText(entry: MessageEntry, { deviceFeatures }: TextOptions): string {
  const { name, header, reply, content, payload, descriptors, latency, failed, outcome } = entry;
  const known = name ?? `message ${header.request}`;
  const said = contentText(known, content, payload, deviceFeatures);
  const text = joinParts([
    channelText(entry.channel),
    known,
    reply ? "reply" : "",
    failed && content.kind !== "ack" ? joinParts(["failed", said === "" ? "" : `(${said})`]) : said,
    descriptors.length > 0 ? `+ ${descriptors.map(descriptorText).join(", ")}` : "",
    (header.flags & HeaderFlag.NEED_REPLY) !== 0 ? "(need_reply)" : "",
    outcomeText(outcome),
  ]);
  return latency === undefined ? text : `${text}, after ${durationText(latency)}`;
}

function rawText({ channel, bytes, descriptors, outcome }: RawEntry): string {
  return joinParts([
    channelText(channel),
    `${bytes.length} bytes ${hex(bytes, 32)}`,
    descriptors.length > 0 ? `+ ${descriptors.map(descriptorText).join(", ")}` : "",
    outcomeText(outcome),
  ]);
}
