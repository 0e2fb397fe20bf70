import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { type CaseResult, check, resultsOf, SpawnedTarget, type Verdict } from "../../src/tools/check/mod.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { realTest } from "../support/peers.ts";
import { type CheckedPeer, checkedPeers } from "./check_peers.ts";

// Back-ends of others, checked case by case. What they did when it was last looked at is in check_results/; a
// difference is either news about them (VHOST_CHECK_RECORD=1 writes it down and docs/peers.md with it) or a mistake of
// a case.

/** What came of a case: its verdict, and what there is to be said about one that does not simply pass. */
type Known = "pass" | "not offered" | { verdict: Verdict; expected?: string; got: string };

/** What is known of a back-end. */
interface PeerRecord {
  /** Its name. */
  peer: string;
  /** The version that was checked. */
  version: string;
  /** Kind of device. */
  device: string;
  /** Cases whose result is decided by a race in the back-end, each with what races; they are not compared. */
  races: Record<string, string>;
  /** Results by case. */
  results: Record<string, Known>;
}

function recordPath(name: string): string {
  return fileURLToPath(new URL(`check_results/${name}.json`, import.meta.url));
}

function readRecord(name: string): PeerRecord {
  return JSON.parse(readFileSync(recordPath(name), "utf8"));
}

/** A result as it is written down. */
function known({ verdict, expected, got }: CaseResult): Known {
  if (verdict === "pass" || verdict === "not offered") return verdict;
  return verdict === "fail" ? { verdict, expected, got } : { verdict, got };
}

const verdictOf = (each: Known | undefined): string =>
  each === undefined ? "no such case" : typeof each === "string" ? each : each.verdict;

/** Differences between what was written down and what came, one line each. */
function differences({ races, results: before }: PeerRecord, results: readonly CaseResult[]): string[] {
  const now = new Map(results.map((result) => [result.id, result]));
  const ids = [...new Set([...Object.keys(before), ...now.keys()])].filter((id) => !(id in races));
  return ids.flatMap((id) => {
    const came = now.get(id);
    if (verdictOf(before[id]) === came?.verdict) return [];
    return [`${id}\n  was  ${JSON.stringify(before[id])}\n  is   ${came?.verdict}: ${came?.got}`];
  });
}

/** Checks a back-end, and says in what it differs from what was written down; or writes it down. */
async function compare(t: TestContext, { name, device, command, version }: CheckedPeer): Promise<string[]> {
  const path = join(tempDir(t), "peer.sock");
  const target = new SpawnedTarget(`unset RUST_BACKTRACE; ${command(t)}`, path, PATIENCE);
  onEnd(t, () => target.close());
  const now = await version();
  const report = await check(target, {
    device,
    write: true,
    patience: PATIENCE,
    quiet: QUIET,
    timeout: 60_000,
  });
  const results = resultsOf(report);
  const record = readRecord(name);
  if (process.env.VHOST_CHECK_RECORD === "1") {
    record.version = now;
    record.results = Object.fromEntries(results.map((result) => [result.id, known(result)]));
    writeFileSync(recordPath(name), `${JSON.stringify(record, null, 2)}\n`);
    return [];
  }
  const found = differences(record, results);
  if (record.version === now || found.length === 0) return found.map((each) => `${name}: ${each}`);
  t.diagnostic(`${name} ${now} differs from ${record.version}:\n${found.join("\n")}`);
  return [];
}

/** How long a case waits for an answer, ms: five back-ends at once, on a machine that is busy anyway. */
const PATIENCE = 3000;
/** How long a case waits before it says that nothing happens, ms. */
const QUIET = 100;

realTest(
  "the back-ends of others do what is written down of them",
  checkedPeers.map(({ name }) => name),
  { timeout: 600_000 },
  async (t) => {
    // Most of the time is spent waiting, so all at once.
    const found = await Promise.all(checkedPeers.map((each) => compare(t, each)));
    assert.equal(found.flat().length, 0, found.flat().join("\n"));
  },
);
