import assert from "node:assert/strict";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { type CaseResult, check, resultsOf, SpawnedTarget } from "../../src/tools/check/mod.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { realTest } from "../support/peers.ts";
import { recording } from "../support/generated.ts";
import { type CheckedPeer, checkedPeers } from "./check_peers.ts";
import { knownOf, type PeerRecord, readRecord, verdictOf, writeRecord } from "./check_record.ts";

// Back-ends of others, checked case by case. What they did when it was last looked at is in check_results/; a
// difference is either news about them (VHOST_RECORD=1 writes it down; docs/peers.md follows) or a mistake of
// a case.

/** Differences between what was written down and what came, one line each. */
function differences({ races, results: before }: PeerRecord, results: readonly CaseResult[]): string[] {
  const now = new Map(results.map((result) => [result.id, result]));
  const ids = [...new Set([...Object.keys(before), ...now.keys()])].filter((id) => !(id in races));
  return ids.flatMap((id) => {
    const came = now.get(id);
    if (verdictOf(before[id]) === (came?.verdict ?? "not offered")) return [];
    return [
      `${id}\n  was  ${JSON.stringify(before[id])}\n  is   ${
        came === undefined ? "no such case" : `${came.verdict}: ${came.got}`
      }`,
    ];
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
  if (recording) {
    writeRecord({ ...record, version: now, results: knownOf(results) });
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
