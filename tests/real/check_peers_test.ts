import assert from "node:assert/strict";
import { join } from "node:path";
import type { TestContext } from "node:test";
import {
  type CaseResult,
  check,
  type CheckOptions,
  resultsOf,
  SpawnedTarget,
} from "../../src/tools/check/mod.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { realTest } from "../support/peers.ts";
import { recording } from "../support/generated.ts";
import { type CheckedPeer, checkedPeers } from "./check_peers.ts";
import { knownOf, type PeerRecord, readRecord, verdictOf, writeRecord } from "./check_record.ts";

// Back-ends of others, checked case by case. What they did when it was last looked at is in check_results/; a
// difference is either news about them (VHOST_RECORD=1 writes it down; docs/peers.md follows) or a mistake of
// a case.

/** A case that came out as it was not written down. */
interface Difference {
  readonly id: string;
  readonly text: string;
}

/** Differences between what was written down and what came. */
function differences({ races, results: before }: PeerRecord, results: readonly CaseResult[]): Difference[] {
  const now = new Map(results.map((result) => [result.id, result]));
  const ids = [...new Set([...Object.keys(before), ...now.keys()])].filter((id) => !(id in races));
  return ids.flatMap((id) => {
    const came = now.get(id);
    if (verdictOf(before[id]) === (came?.verdict ?? "not offered")) return [];
    const is = came === undefined ? "no such case" : `${came.verdict}: ${came.got}`;
    return [{ id, text: `${id}\n  was  ${JSON.stringify(before[id])}\n  is   ${is}` }];
  });
}

/** Checks a back-end. */
async function look(
  t: TestContext,
  { device, command }: CheckedPeer,
  more: Partial<CheckOptions> = {},
): Promise<CaseResult[]> {
  const path = join(tempDir(t), "peer.sock");
  const target = new SpawnedTarget(`unset RUST_BACKTRACE; ${command(t)}`, path, PATIENCE);
  onEnd(t, () => target.close());
  const options = { device, write: true, patience: PATIENCE, quiet: QUIET, timeout: 60_000 };
  return resultsOf(await check(target, { ...options, ...more }));
}

/** Checks a back-end, and says what of it differs from what was written down; or writes it down. */
async function compare(t: TestContext, peer: CheckedPeer): Promise<string[]> {
  const { name, version } = peer;
  const now = await version();
  const results = await look(t, peer);
  const record = readRecord(name);
  if (recording) {
    writeRecord({ ...record, version: now, results: knownOf(results) });
    return [];
  }
  const found = differences(record, results);
  if (record.version === now || found.length === 0) return found.map(({ id }) => id);
  t.diagnostic(`${name} ${now} differs from ${record.version}:\n${found.map(({ text }) => text).join("\n")}`);
  return [];
}

/** Looks at some cases again, with nothing else beside them and more time. Says in what they still differ. */
async function compareAgain(t: TestContext, peer: CheckedPeer, ids: readonly string[]): Promise<string[]> {
  t.diagnostic(`${peer.name} is looked at again: ${ids.join(", ")}`);
  const results = await look(t, peer, { filter: ids, patience: 3 * PATIENCE, quiet: 3 * QUIET });
  return differences(readRecord(peer.name), results).filter(({ id }) => ids.includes(id)).map(({ text }) =>
    `${peer.name}: ${text}`
  );
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
    const differ = await Promise.all(checkedPeers.map((each) => compare(t, each)));
    // On a machine that is busy, a back-end may have been late.
    const found: string[] = [];
    for (const [i, ids] of differ.entries()) {
      if (ids.length > 0) found.push(...await compareAgain(t, checkedPeers[i], ids));
    }
    assert.equal(found.length, 0, found.join("\n"));
  },
);
