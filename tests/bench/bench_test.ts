/** Every bench, as small as it can be: what it prints has the form that others rely on. Nothing is said about speed. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import test from "node:test";
import { type Document, DOMParser } from "@xmldom/xmldom";
import { perfLacks, perfRing } from "../../bench/perf.ts";
import { advantage, bestPeer } from "../../bench/report.ts";
import { quantile, summarize } from "../../bench/stats.ts";
import type { Findings, Row } from "../../bench/bench.ts";
import { tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { peer, type PeerName, realTest } from "../support/peers.ts";
import { run, type RunResult } from "../support/process.ts";

function bench(args: readonly string[], check = true): Promise<RunResult> {
  return run(process.execPath, ["run", "--allow-all", join(root, "bench/main.ts"), ...args], {
    timeout: 150_000,
    check,
    env: { NO_COLOR: "1" },
  });
}

/** Fails when it is not well-formed. */
function parseXml(source: string): Document {
  const onError = (_level: string, message: string): never => assert.fail(message);
  return new DOMParser({ onError }).parseFromString(source, "image/svg+xml");
}

interface Report extends Findings {
  readonly bench: string;
  readonly date: string;
  readonly rounds: number;
  readonly scale: number;
  readonly machine: { readonly processors: number; readonly model: string };
}

/** What each bench is given, and what it must measure: points, and subjects of ours. */
const benches: readonly {
  readonly name: string;
  readonly needs: readonly PeerName[];
  readonly args: readonly string[];
  readonly points: readonly Row["point"][];
  readonly ours: readonly string[];
}[] = [
  {
    name: "blk",
    needs: ["qemu-img", "libblkio"],
    args: ["--storage=null,file", "--size=4", "--depth=8"],
    points: ["null", "file"].map((storage) => ({
      storage,
      op: "read",
      queues: 1,
      request: "4 KiB",
      depth: 8,
    })),
    ours: ["ours", "ours, --poll-us=0"],
  },
  {
    name: "blk",
    needs: ["qemu-img", "libblkio", "libblkio-dev"],
    args: ["--storage=null", "--op=read,write", "--size=64", "--depth=4", "--queues=1,2"],
    points: [1, 2].flatMap((queues) =>
      ["read", "write"].map((op) => ({ storage: "null", op, queues, request: "64 KiB", depth: 4 }))
    ),
    ours: ["ours", "ours, --poll-us=0"],
  },
  {
    name: "guest-net",
    needs: ["qemu", "guest", "tun", "passt"],
    args: ["--what=send,connections"],
    points: [{ what: "send" }, { what: "connections" }],
    ours: ["ours, tap", "ours, user", "ours, stream to passt"],
  },
  {
    name: "ring",
    needs: [],
    args: ["--descriptors=1,3"],
    points: ["ring", "table", "ring, recorded"].flatMap((place) =>
      [1, 3].map((descriptors) => ({ descriptors, in: place }))
    ),
    ours: ["split", "packed"],
  },
  {
    name: "wake",
    needs: ["libblkio-dev"],
    args: ["--pause=100,2000"],
    points: [100, 2000].flatMap((pause) =>
      ["kick to handler", "kick to completion", "kick to completion, 99 %"].map((what) => ({ what, pause }))
    ),
    ours: ["ours, sync handler", "ours, async handler"],
  },
  {
    name: "start",
    needs: ["libblkio-dev"],
    args: [],
    points: ["null", "file"].flatMap((storage) =>
      ["socket", "first read"].map((until) => ({ storage, until }))
    ),
    ours: ["ours"],
  },
  {
    name: "memory",
    needs: ["libblkio-dev"],
    args: ["--sessions=2"],
    points: [
      ...["idle", "one session", "2 sessions", "after they have left", "under load, most", "after the load"],
      "each session more",
    ].flatMap((when) => ["RSS", "PSS"].map((what) => ({ when, what }))),
    ours: ["ours"],
  },
];

for (const { name, needs, args, points, ours } of benches) {
  realTest(`bench ${[name, ...args].join(" ")}`, needs, { timeout: 180_000 }, async (t) => {
    const svg = join(tempDir(t), "plot.svg");
    const { stdout } = await bench([name, ...args, "--rounds=2", "--scale=0.01", "--json", `--svg=${svg}`]);
    const report = JSON.parse(stdout) as Report;
    assert.equal(report.bench, name);
    assert.equal(report.rounds, 2);
    assert.equal(report.scale, 0.01);
    assert.ok(!Number.isNaN(Date.parse(report.date)));
    assert.ok(report.machine.processors > 0 && report.machine.model !== "");

    // Instructions, where they can be counted, come on top.
    const rows = report.rows.filter(({ unit }) => unit !== "instructions");
    const sorted = (all: readonly Row["point"][]): string[] =>
      all.map((point) => JSON.stringify(point)).sort();
    assert.deepEqual(sorted(rows.map(({ point }) => point)), sorted(points));
    const names = report.subjects.map((subject) => subject.name);
    assert.equal(new Set(names).size, names.length);
    for (const { figures, unit, better, point } of report.rows) {
      assert.ok(unit !== "" && ["more", "less"].includes(better));
      assert.ok(Object.keys(figures).length > 0);
      assert.ok(report.across in point);
      for (const [subject, { min, median, max, rounds }] of Object.entries(figures)) {
        assert.ok(names.includes(subject), subject);
        assert.equal(rounds.length, 2);
        assert.ok(min <= median && median <= max, `${subject}: ${min}, ${median}, ${max}`);
        // Memory of a session can be too little to see; everything else takes some.
        if (point.when !== "each session more") assert.ok(min > 0, `${subject}: ${min}`);
      }
    }
    for (const subject of ours) {
      assert.ok(rows.some(({ figures }) => subject in figures), `${subject} was not measured`);
    }
    if (name !== "ring" && "path" in peer("qemu-storage-daemon")) {
      const peers = report.subjects.filter((subject) => subject.peer).map((subject) => subject.name);
      assert.ok(peers.length > 0);
      for (const subject of peers) assert.ok(rows.some(({ figures }) => subject in figures), subject);
    }

    const drawing = parseXml(readFileSync(svg, "utf8"));
    assert.equal(drawing.documentElement?.tagName, "svg");
    assert.ok(drawing.getElementsByTagName("path").length > 10);
    const texts = [...drawing.getElementsByTagName("text")].map(({ textContent }) => textContent);
    for (const subject of names.filter((each) => rows.some(({ figures }) => each in figures))) {
      assert.ok(texts.includes(subject), `the plot does not name ${subject}: ${texts}`);
    }
  });
}

test("a bench as text", { timeout: 120_000 }, async () => {
  const { stdout, stderr } = await bench(["ring", "--descriptors=2", "--quick", "--scale=0.01"]);
  assert.match(stdout, /^\| descriptors \| in +\| split +\| packed +\| split, nothing checked +\|$/m);
  assert.equal(
    stdout.match(/^\| +2 \| (ring|table|ring, recorded) +\| [\d.]+ \([\d.]+–[\d.]+\) +\| .*\|$/gm)?.length,
    3,
  );
  assert.match(stdout, /^Median \(least–most\) of 2 rounds/m);
  assert.match(stderr, /^3\/3 /m);
});

test("help and mistakes of the command line", { timeout: 60_000 }, async () => {
  const all = await bench(["--help"]);
  for (const name of new Set(benches.map((each) => each.name))) {
    assert.match(all.stdout, new RegExp(`^  ${name} +\\S`, "m"));
    const { stdout } = await bench([name, "--help"]);
    assert.match(stdout, new RegExp(`^Usage: deno task bench ${name} `));
    for (const option of ["rounds=N", "quick", "json", "svg=FILE", "help"]) {
      assert.ok(stdout.includes(`--${option}`));
    }
  }
  for (
    const [args, message] of [
      [["nothing"], /no bench 'nothing'; there are blk, /],
      [["ring", "--rounds=0"], /--rounds: '0' is not a whole number above 0/],
      [["ring", "--scale=x"], /--scale: 'x' is not a number above 0/],
      [["ring", "--descriptors=1,"], /--descriptors: '' is not a whole number above 0/],
      [["ring", "--what"], /no option '--what'/],
    ] as const
  ) {
    const { code, stderr } = await bench(args, false);
    assert.equal(code, 2);
    assert.match(stderr, message);
  }
});

test("what is compared with is the best peer, round by round", { timeout: 5000 }, () => {
  assert.equal(quantile([4, 1, 3, 2], 0.5), 2.5);
  assert.equal(quantile([5], 0.99), 5);
  const row = (better: "more" | "less"): Row => ({
    point: {},
    unit: "x",
    better,
    figures: { ours: summarize([10, 20]), a: summarize([5, 40]), b: summarize([1, 1]) },
  });
  const subjects = ["ours", "a", "b"].map((name) => ({ name, peer: name !== "ours" }));
  assert.equal(bestPeer(row("more"), subjects), "a");
  assert.equal(bestPeer(row("less"), subjects), "b");
  assert.deepEqual(advantage(row("more"), "ours", "a")?.rounds, [2, 0.5]);
  assert.deepEqual(advantage(row("less"), "ours", "a")?.rounds, [0.5, 2]);
  assert.equal(bestPeer(row("more"), []), undefined);
});

// Time is what perf can count everywhere; instructions are counted in the same way.
const lacks = await perfLacks("task-clock");
test(`perf counts while the device works [${lacks ?? "task-clock"}]`, {
  skip: lacks,
  timeout: 120_000,
}, async (t) => {
  const shape = { packed: false, size: 256, descriptors: 3, indirect: false, inflight: false };
  const each = await perfRing(t, "task-clock", shape, 20_000);
  assert.ok(each > 0);
});
