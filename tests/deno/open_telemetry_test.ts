import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { metrics, requestDuration } from "../../src/metrics/mod.ts";
import { FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { buffer } from "../session/requests.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { Child } from "../support/process.ts";

/** How long to wait for what a loaded machine exports, ms. */
const PATIENCE = 30_000;

/** A point as OTLP writes it in JSON; whole numbers of 64 bits are text. */
interface Point {
  readonly attributes?: readonly {
    readonly key: string;
    readonly value: { readonly stringValue?: string };
  }[];
  readonly asInt?: string | number;
  readonly asDouble?: number;
  readonly count?: string | number;
  readonly sum?: number;
  readonly bucketCounts?: readonly (string | number)[];
  readonly explicitBounds?: readonly number[];
}

interface OtlpMetric {
  readonly name: string;
  readonly unit?: string;
  readonly description?: string;
  readonly sum?: { readonly dataPoints: readonly Point[]; readonly isMonotonic?: boolean };
  readonly gauge?: { readonly dataPoints: readonly Point[] };
  readonly histogram?: { readonly dataPoints: readonly Point[] };
}

/** The newest of each metric that was exported to it: what a collector would know. */
class Collector {
  readonly metrics = new Map<string, OtlpMetric>();
  readonly #server = createServer((request, response) => {
    const pieces: Uint8Array[] = [];
    request.on("data", (piece) => pieces.push(piece));
    request.once("end", () => {
      if (request.url === "/v1/metrics") this.#take(JSON.parse(new TextDecoder().decode(concat(pieces))));
      response.writeHead(200, { "content-type": "application/json" }).end("{}");
    });
  });

  static async start(t: TestContext): Promise<Collector> {
    const collector = new Collector();
    const server = collector.#server;
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onEnd(t, () => {
      server.close();
      server.closeAllConnections();
    });
    return collector;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  #take(
    { resourceMetrics }: {
      resourceMetrics: { scopeMetrics: { scope: { name: string }; metrics: OtlpMetric[] }[] }[];
    },
  ): void {
    for (const { scopeMetrics } of resourceMetrics) {
      for (const { scope, metrics } of scopeMetrics) {
        if (scope.name === "rng") { for (const each of metrics) this.metrics.set(each.name, each); }
      }
    }
  }
}

function concat(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  pieces.reduce((at, piece) => (all.set(piece, at), at + piece.length), 0);
  return all;
}

const number = (value: string | number | undefined): number => Number(value ?? 0);

test("Deno exports the example's figures to a collector", { timeout: 90_000 }, async (t) => {
  const collector = await Collector.start(t);
  const folder = tempDir(t);
  const socket = join(folder, "m.sock");
  const source = readFileSync(join(root, "examples/metrics.ts"), "utf8");
  const script = join(folder, "metrics.ts");
  const replaced = source.replace('"/tmp/metrics.sock"', JSON.stringify(socket)).replace(
    ".listen(9464",
    ".listen(0",
  );
  assert.equal(
    replaced.length,
    source.length - '"/tmp/metrics.sock"9464'.length + JSON.stringify(socket).length + 1,
  );
  writeFileSync(script, replaced);
  const permissions = ["--allow-ffi", "--allow-net"];
  const child = Child.start(
    t,
    process.execPath,
    ["run", "--no-lock", "--no-check", ...permissions, `--config=${join(root, "deno.json")}`, script],
    {
      env: {
        OTEL_DENO: "true",
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
        OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
        OTEL_METRIC_EXPORT_INTERVAL: "200",
        OTEL_SERVICE_NAME: "rng",
        NO_COLOR: "1",
      },
    },
  );
  await child.waitSocket(socket, PATIENCE);
  const frontEnd = await FrontEnd.connect(socket);
  const memory = new SharedMemory(1 << 16);
  onEnd(t, () => {
    frontEnd.close();
    memory.close();
  });
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  const room = memory.allocate(64);
  for (let i = 0; i < 37; i++) await queue.request([], [buffer(room)]);

  const of = (name: string): Point | undefined => {
    const found = collector.metrics.get(name);
    const points = (found?.sum ?? found?.gauge ?? found?.histogram)?.dataPoints ?? [];
    return points.find(({ attributes = [] }) =>
      attributes.every(({ key, value }) => key !== "ring" || value.stringValue === "0")
    );
  };
  const value = (name: string): number => number(of(name)?.asInt) + number(of(name)?.asDouble);
  const timed = (): number => number(of(requestDuration.name)?.count);
  const deadline = performance.now() + PATIENCE;
  while (value("vhost_user.requests") < 37 || timed() === 0) {
    const known = JSON.stringify([...collector.metrics.values()]);
    assert.ok(performance.now() < deadline, `in vain; the collector has ${known}; ${child.output}`);
    await sleep(20);
  }
  assert.equal(value("vhost_user.requests"), 37);
  assert.equal(value("vhost_user.requests.returned"), 37);
  assert.equal(value("vhost_user.written"), 37 * 64);
  assert.equal(value("vhost_user.sessions.active"), 1);
  const labels = Object.fromEntries(
    of("vhost_user.requests")?.attributes?.map(({ key, value }) => [key, value.stringValue]) ?? [],
  );
  assert.deepEqual(labels, { device: "rng", socket, ring: "0" });
  assert.equal(collector.metrics.get("vhost_user.written")?.unit, "By");
  assert.equal(collector.metrics.get("vhost_user.requests")?.sum?.isMonotonic, true);
  const duration = of(requestDuration.name);
  assert.ok(timed() <= 37, `${timed()} of 37 were timed`);
  assert.ok((duration?.sum ?? 0) > 0);
  assert.equal(duration?.explicitBounds?.length, 49);
  const buckets = duration?.bucketCounts?.reduce((sum: number, each) => sum + number(each), 0);
  assert.equal(buckets, timed());
  // Every metric is there, but those of rings that were not used.
  for (const { name } of metrics) assert.ok(collector.metrics.has(name), name);
});
