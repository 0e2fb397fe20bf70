/**
 * How many messages of each name there were, and how long their answers took.
 *
 * @module
 */

import type { Channel, Entry } from "./entry.ts";
import { durationText } from "./text.ts";

/** Answers whose time is kept for the median: the last ones. */
const MOST_TIMES = 10_000;

/** Rows after which messages that have no name share one. */
const MOST_ROWS = 256;

/** One row of a summary. */
export interface SummaryRow {
  /** The connection. */
  readonly channel: Channel;
  /** Name of the message, or `message <id>`. */
  readonly name: string;
  /** How often it was sent. */
  readonly count: number;
  /** How often it was answered. */
  readonly answered: number;
  /** How often the answer was failure. */
  readonly failed: number;
  /** Times from request to answer, ms; absent when nothing was answered. The median is of the last 10 000. */
  readonly latency?: { readonly min: number; readonly median: number; readonly max: number };
}

interface Counts {
  readonly channel: Channel;
  readonly name: string;
  count: number;
  answered: number;
  failed: number;
  min: number;
  max: number;
  readonly times: number[];
}

/** Counts the messages of a trace. */
export class Summary {
  readonly #counts = new Map<string, Counts>();

  /** Counts an entry. */
  add(entry: Entry): void {
    if (entry.type !== "message") return;
    const known = this.#counts.size < MOST_ROWS;
    const name = entry.name ?? (known ? `message ${entry.header.request}` : "other messages");
    const key = `${entry.channel} ${name}`;
    let counts = this.#counts.get(key);
    if (counts === undefined) {
      counts = {
        channel: entry.channel,
        name,
        count: 0,
        answered: 0,
        failed: 0,
        min: Infinity,
        max: -Infinity,
        times: [],
      };
      this.#counts.set(key, counts);
    }
    if (!entry.reply) counts.count++;
    if (entry.latency === undefined) return;
    if (entry.failed) counts.failed++;
    counts.min = Math.min(counts.min, entry.latency);
    counts.max = Math.max(counts.max, entry.latency);
    counts.times[counts.answered++ % MOST_TIMES] = entry.latency;
  }

  /** One row per message, in the order in which they first came. */
  get rows(): SummaryRow[] {
    return [...this.#counts.values()].map(({ channel, name, count, answered, failed, min, max, times }) => ({
      channel,
      name,
      count,
      answered,
      failed,
      ...(answered === 0 ? {} : { latency: { min, median: median(times), max } }),
    }));
  }
}

function median(times: readonly number[]): number {
  const sorted = times.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The rows as a table. */
export function summaryLines(rows: readonly SummaryRow[]): string[] {
  const head = ["message", "sent", "answered", "failed", "min", "median", "max"];
  const cells = rows.map(({ channel, name, count, answered, failed, latency }) => [
    channel === "main" ? name : `[channel] ${name}`,
    `${count}`,
    `${answered}`,
    `${failed}`,
    ...(latency === undefined
      ? ["", "", ""]
      : [latency.min, latency.median, latency.max].map((each) => durationText(each))),
  ]);
  const widths = head.map((title, i) => Math.max(title.length, ...cells.map((row) => row[i].length)));
  return [head, ...cells].map((row) =>
    row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join("  ").trimEnd()
  );
}
