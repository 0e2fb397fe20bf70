import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { tempDir } from "../support/cleanup.ts";
import { checkGenerated } from "../support/generated.ts";
import { root, startCommand, startDisk } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { qemuIo } from "../support/qemu_io.ts";
import { drawn, type Folder, folders, layersDiagram } from "./module_graph.ts";
import { sessionDiagram } from "./session_diagram.ts";

// docs/how-it-works.md: its diagrams are drawn from the sources, and from a session.

const PAGE = "docs/how-it-works.md";

test("the diagram of the layers is what the sources import", { timeout: 10_000 }, () => {
  const all = folders();
  assert.ok(all.size > 10);
  checkGenerated(PAGE, "layers", layersDiagram(all));
});

test("every folder is explained", { timeout: 10_000 }, () => {
  const text = readFileSync(join(root, PAGE), "utf8");
  const explained = [...text.matchAll(/^- \*\*`([^`]+)`\*\*/gm)].map(([, name]) => name);
  assert.deepEqual(explained.sort(), [...folders().keys()].sort());
});

test("an arrow that a longer way shows as well is not drawn", { timeout: 10_000 }, () => {
  const folder = (name: string, ...imports: string[]): [string, Folder] => [
    name,
    { name, imports: new Set(imports) },
  ];
  assert.deepEqual(drawn(new Map([folder("a", "b", "c", "d"), folder("b", "c"), folder("c"), folder("d")])), [
    ["a", "b"],
    ["a", "d"],
    ["b", "c"],
  ]);
});

realTest(
  "the diagram of a session is what qemu-io and a disk say to each other",
  ["qemu-io", "libblkio"],
  { timeout: 60_000 },
  async (t) => {
    const disk = await startDisk(t, { args: ["--storage=mem:1M"], workers: undefined });
    const seen = join(tempDir(t), "seen.sock");
    const trace = ["trace", `--listen=${seen}`, `--connect=${disk.socket}`, "--device=blk", "--json"];
    const tracer = startCommand(t, trace);
    await tracer.waitSocket(seen, 30_000);
    await qemuIo(seen, "read 0 64k");
    tracer.kill("SIGTERM");
    assert.equal(await tracer.waitEnd(30_000), 0, tracer.output);
    const lines = tracer.output.split("\n").filter((line) => line.startsWith("{"));
    checkGenerated(PAGE, "session", sessionDiagram(lines.join("\n")));
  },
);
