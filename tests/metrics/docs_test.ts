import { test } from "node:test";
import { logEvents, type LogRecord, logRecord, recordText } from "../../mod.ts";
import { metrics, prometheusName, requestDuration } from "../../src/metrics/mod.ts";
import { NEXT, WRITE } from "../session/rings.ts";
import { eventually, LIMIT, Scene } from "../session/scene.ts";
import { onStage } from "../session/stage.ts";
import { checkGenerated, table } from "../support/generated.ts";

const PAGE = "docs/metrics.md";

test("docs/metrics.md has every metric", LIMIT, () => {
  checkGenerated(
    PAGE,
    "metrics",
    table(
      ["Metric", "In Prometheus", "Type", "Unit", "Labels", "What it is"],
      [...metrics, requestDuration].map((metric) => [
        `\`${metric.name}\``,
        `\`${prometheusName(metric)}\``,
        metric.type,
        `\`${metric.unit}\``,
        metric.labels.join(", "),
        metric.help,
      ]),
    ),
  );
});

test("docs/metrics.md has every event of the log", LIMIT, () => {
  checkGenerated(
    PAGE,
    "events",
    table(["Event", "What happens"], Object.entries(logEvents).map(([name, what]) => [`\`${name}\``, what])),
  );
});

test("docs/metrics.md shows a ring that broke as it is shown", LIMIT, async (t) => {
  const records: LogRecord[] = [];
  const scene = await Scene.disk(t, {}, {
    log: (...entry) => records.push(logRecord(...entry)),
    workers: undefined,
  });
  const { memory, ring: make } = await onStage(t, scene);
  const ring = make();
  await ring.start();
  const address = memory.guestAddress;
  ring.describe(2, { address, length: 16, flags: NEXT, next: 3 });
  ring.describe(3, { address: address + 0x1000, length: 512, flags: NEXT | WRITE, next: 12 });
  ring.send(2);
  await ring.broken();
  const broken = (): LogRecord | undefined => records.find(({ event }) => event === "ring.broken");
  await eventually("it is told", () => broken() !== undefined);
  // Where this process has mapped its memory is another place each time.
  let places = 0;
  const text = recordText(broken() as LogRecord).replace(
    /0x7f[0-9a-f]{10}/g,
    () => `0x7f12340${places++}0000`,
  );
  checkGenerated(PAGE, "dump", ["```text", ...text.split("\n"), "```"]);
});
