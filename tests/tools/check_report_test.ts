import assert from "node:assert/strict";
import test from "node:test";
import {
  allCases,
  AS_EXPECTED,
  type CaseResult,
  groups,
  jsonReport,
  junitReport,
  matches,
  type Report,
  selectCases,
  TextReport,
} from "../../src/tools/check/mod.ts";
import { type Paint, plain } from "../../src/tools/paint.ts";

function result(id: string, verdict: CaseResult["verdict"], more: Partial<CaseResult>): CaseResult {
  const title = `About ${id}`;
  const fixed = { id, title, section: "virtio 1.4 §2.7", verdict, duration: 1.25 };
  return { ...fixed, expected: title, got: AS_EXPECTED, ...more };
}

const passed = result("a.one", "pass", { got: "a remark" });
const failed = result("a.two", "fail", {
  expected: "this",
  got: 'that & <"those">',
  output: "line 1\nline 2\n",
});
const absent = [
  result("b.one", "not offered", { got: "MQ" }),
  result("b.two", "not offered", { got: "MQ" }),
];
const left = result("b.three", "undefined by the specification", { got: "waits" });
const report: Report = {
  socket: "/tmp/x.sock",
  device: "blk",
  offer: { features: 1n << 32n | 1n, protocol: 1n << 3n, queues: 4 },
  groups: [{ title: "Group A", results: [passed, failed] }, { title: "Group B", results: [...absent, left] }],
};

/** All lines of a text report. */
function lines(paint: Paint, all: boolean): string[] {
  const text = new TextReport(8, paint, all);
  return [
    ...text.head(report),
    ...report.groups.flatMap(({ title, results }) => results.flatMap((each) => text.result(title, each))),
    ...text.summary(report),
  ];
}

test("a report for people tells what failed, with what was expected and where that is written", () => {
  assert.deepEqual(lines(plain, false), [
    "/tmp/x.sock as blk",
    "  features           bit 0 VERSION_1",
    "  protocol features  REPLY_ACK",
    "  rings              4",
    "",
    "Group A",
    "  ✓ a.one     About a.one: a remark  (virtio 1.4 §2.7)",
    "  ✗ a.two     About a.two  (virtio 1.4 §2.7)",
    "      expected  this",
    '      got       that & <"those">',
    "      it wrote",
    "        line 1",
    "        line 2",
    "",
    "Group B",
    "  ? b.three   About b.three: waits  (virtio 1.4 §2.7)",
    "  - 2 not tried, for want of MQ",
    "",
    "5 cases: 1 fail, 1 undefined by the specification, 2 not offered, 1 pass",
  ]);
});

test("a report for people can name every case, and has colours where they are wanted", () => {
  assert.ok(lines(plain, true).includes("  - b.one     About b.one: MQ  (virtio 1.4 §2.7)"));
  assert.ok(lines(plain, true).every((line) => !line.includes("<red")));
  assert.ok(lines((style, text) => `<${style} ${text}>`, false).some((line) => line.includes("<red ✗>")));
});

test("a report as JSON has everything", () => {
  const json = JSON.parse(JSON.stringify(jsonReport(report, "1.2.3")));
  assert.equal(json.tool, "vhost-user check 1.2.3");
  assert.deepEqual(json.counts, {
    "pass": 1,
    "fail": 1,
    "not offered": 2,
    "undefined by the specification": 1,
  });
  assert.equal(json.offer.features, "0x100000001");
  assert.deepEqual(json.offer.names.protocol, ["REPLY_ACK"]);
  assert.equal(json.cases.length, 5);
  assert.deepEqual(json.cases[1], {
    id: "a.two",
    group: "Group A",
    title: "About a.two",
    section: "virtio 1.4 §2.7",
    result: "fail",
    expected: "this",
    got: 'that & <"those">',
    output: "line 1\nline 2\n",
    milliseconds: 1.3,
  });
});

test("a report as JUnit counts failures, skips what is not offered, and is well-formed", () => {
  const xml = junitReport(report);
  assert.match(
    xml,
    /^<\?xml version="1\.0" encoding="UTF-8"\?>\n<testsuites .*tests="5" failures="1" skipped="2"/,
  );
  assert.match(xml, /<testsuite name="Group A" tests="2" failures="1" skipped="0" time="0\.003">/);
  assert.match(xml, /<failure message="that &#38; &#60;&#34;those&#34;&#62;">/);
  assert.match(xml, /<skipped message="not offered: MQ"\/>/);
  assert.match(xml, /<system-out>undefined by the specification: waits<\/system-out>/);
  const open = [...xml.matchAll(/<([a-z-]+)(?:\s[^>]*[^/?])?>/g)].map(([, name]) => name).sort();
  const close = [...xml.matchAll(/<\/([a-z-]+)>/g)].map(([, name]) => name).sort();
  assert.deepEqual(open, close);
});

test("control characters do not spoil the JUnit file", () => {
  const wild = result("a.wild", "fail", { expected: "text", got: "\x1b[31m\x00" });
  const xml = junitReport({ ...report, groups: [{ title: "G", results: [wild] }] });
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(xml, /[\x00-\x08\x0b-\x1f]/);
});

test("patterns name cases, groups of them, or parts of names", () => {
  const rows: [string, string, boolean][] = [
    ["rings.base", "rings.base", true],
    ["rings.base", "rings", true],
    ["rings.base", "ring", false],
    ["rings.base", "rings.bas", false],
    ["rings.base", "*base", true],
    ["fds.more.SET_MEM_TABLE", "*.SET_MEM_TABLE", true],
    ["fds.more.SET_MEM_TABLE", "fds.*.set_mem_table", true],
    ["fds.more.SET_MEM_TABLE", "fds.more", true],
    ["rings.base", "ring.*", false],
    ["rings.base", "", false],
  ];
  for (const [id, pattern, expected] of rows) {
    assert.equal(matches(id, [pattern]), expected, `${pattern} and ${id}`);
  }
  assert.ok(matches("a.b", ["x", "a"]));
});

test("every case has a name of its own, a title and a section", () => {
  const ids = allCases.map(({ id }) => id);
  assert.equal(new Set(ids).size, ids.length, "names are unique");
  const titles = allCases.map(({ title }) => title);
  assert.deepEqual(titles.filter((title, i) => titles.indexOf(title) !== i), [], "titles are unique");
  for (const { id, title, section } of allCases) {
    assert.match(id, /^[a-z]+(\.[A-Za-z0-9_-]+)+$/);
    assert.match(title, /^[A-Za-z0-9].*[^.]$/, id);
    assert.match(section, /^(vhost-user "[^"]+"|virtio 1\.4 §\d+(\.\d+)*)$/, id);
  }
  assert.ok(allCases.length > 300, `${allCases.length} cases`);
});

test("cases are chosen by kind of device, by whether they write, and by name", () => {
  const chosen = (options: Parameters<typeof selectCases>[0]) =>
    selectCases(options).flatMap(({ cases }) => cases.map(({ id }) => id));
  assert.equal(chosen({}).some((id) => id.startsWith("blk.")), false);
  assert.ok(chosen({ device: "blk" }).includes("blk.read"));
  assert.equal(chosen({ device: "blk" }).includes("blk.write"), false);
  assert.ok(chosen({ device: "blk", write: true }).includes("blk.write"));
  assert.deepEqual(chosen({ device: "rng", filter: ["rng"] }), ["rng.bytes"]);
  assert.equal(selectCases({ filter: ["rings"] }).length, 1, "groups without a case are left out");
  assert.ok(groups.length > 10);
});
