import assert from "node:assert/strict";
import test from "node:test";
import { allCases } from "../../src/tools/check/mod.ts";
import { checkedPeers } from "../real/check_peers.ts";
import { readRecord } from "../real/check_record.ts";
import { checkGenerated, table } from "../support/generated.ts";

// docs/peers.md lists what other back-ends do wrong, from what tests/real/check_peers_test.ts has written down.

const sections = new Map(allCases.map(({ id, section }) => [id, section]));

/** A section that is about one message, as that of all its kin. */
function sectionOf(id: string, several: boolean): string {
  const section = sections.get(id) ?? "";
  return several ? section.replace(/: VHOST_USER_\w+/, "") : section;
}

/** A row for each failure; cases that differ in the message only, and fail alike, share one. */
function failures(name: string): string[][] {
  const rows = new Map<string, { ids: string[]; expected: string; got: string }>();
  for (const [id, known] of Object.entries(readRecord(name).results)) {
    if (typeof known === "string" || known.verdict !== "fail") continue;
    const message = id.slice(id.lastIndexOf(".") + 1);
    const byMessage = /^[A-Z_]+$/.test(message);
    const expected = byMessage ? known.expected?.replaceAll(message, "the message") : known.expected;
    const kin = byMessage ? id.slice(0, -message.length) : id;
    const key = `${kin} ${expected} ${known.got}`;
    const row = rows.get(key) ?? { ids: [], expected: expected ?? "", got: known.got };
    row.ids.push(id);
    rows.set(key, row);
  }
  return [...rows.values()].map(({ ids, expected, got }) => [
    ids.map((id) => `\`${id}\``).join(" "),
    sectionOf(ids[0], ids.length > 1),
    expected,
    got,
  ]);
}

for (const { name } of checkedPeers) {
  test(`docs/peers.md has every failure of ${name}`, () => {
    const { version, results, races } = readRecord(name);
    const all = Object.values(results).map((known) => typeof known === "string" ? known : known.verdict);
    const count = (verdict: string) => all.filter((each) => each === verdict).length;
    checkGenerated("docs/peers.md", name, [
      `Version ${version}. Of ${all.length} cases that apply ${count("pass")} pass, ${count("fail")} fail, ` +
      `${count("undefined by the specification")} undefined by the specification.`,
      "",
      ...table(["Case", "Where it is written", "Expected", "Came"], failures(name)),
      ...Object.entries(races).flatMap((
        [id, why],
      ) => ["", `\`${id}\` comes out one way or the other: ${why}.`]),
    ]);
  });
}

test("what is written down of other back-ends is about cases that exist", () => {
  for (const { name } of checkedPeers) {
    const unknown = Object.keys(readRecord(name).results).filter((id) => !sections.has(id));
    assert.deepEqual(
      unknown,
      [],
      `${name}: VHOST_RECORD=1 and tests/real/check_peers_test.ts bring it up to date`,
    );
  }
});
