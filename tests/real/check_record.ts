import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { CaseResult, Verdict } from "../../src/tools/check/mod.ts";

// What back-ends of others did when they were last checked: check_results/, a file for each.

/** What came of a case: its verdict, and what there is to be said about one that does not simply pass. */
export type Known = "pass" | { verdict: Verdict; expected?: string; got: string };

/** What is known of a back-end. */
export interface PeerRecord {
  /** Its name. */
  peer: string;
  /** The version that was checked. */
  version: string;
  /** Kind of device. */
  device: string;
  /** Cases whose result is decided by a race in the back-end, each with what races; they are not compared. */
  races: Record<string, string>;
  /** Results by case; what is not offered has none. */
  results: Record<string, Known>;
}

function recordPath(name: string): string {
  return fileURLToPath(new URL(`check_results/${name}.json`, import.meta.url));
}

/** Reads what is known of a back-end. */
export function readRecord(name: string): PeerRecord {
  return JSON.parse(readFileSync(recordPath(name), "utf8"));
}

/** Writes it down. */
export function writeRecord(record: PeerRecord): void {
  writeFileSync(recordPath(record.peer), `${JSON.stringify(record, null, 2)}\n`);
}

/** Results as they are written down. */
export function knownOf(results: readonly CaseResult[]): Record<string, Known> {
  return Object.fromEntries(
    results.filter(({ verdict }) => verdict !== "not offered").map(({ id, verdict, expected, got }) => {
      if (verdict === "pass") return [id, verdict];
      return [id, verdict === "fail" ? { verdict, expected, got } : { verdict, got }];
    }),
  );
}

/** The verdict of what is written down. */
export function verdictOf(each: Known | undefined): Verdict {
  return each === undefined ? "not offered" : typeof each === "string" ? each : each.verdict;
}
