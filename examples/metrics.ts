/**
 * An entropy device that says what it does: to Prometheus at http://127.0.0.1:9464/metrics, and through OpenTelemetry, which
 * Deno exports by itself.
 *
 *     OTEL_DENO=true OTEL_METRIC_EXPORT_INTERVAL=10000 deno run --allow-ffi --allow-net examples/metrics.ts
 *
 * and the socket is `/tmp/metrics.sock`. Elsewhere than in Deno, OpenTelemetry needs an SDK of its own; the figures for
 * Prometheus are there without one.
 *
 * @module
 */

import { createServer } from "node:http";
import { metrics } from "@opentelemetry/api";
import { defineDevice, logRecord, recordJson, serve } from "@vhost/user";
import { observe, prometheusContentType, prometheusText } from "@vhost/user/metrics";

const rng = defineDevice({
  type: 4,
  name: "rng",
  queues: [(chain) => chain.write((bytes) => crypto.getRandomValues(bytes))],
});

const server = await serve(rng, {
  socketPath: "/tmp/metrics.sock",
  log: (...entry) => console.error(recordJson(logRecord(...entry))),
});

observe(server, metrics.getMeter("rng"));

createServer((_, response) => {
  response.setHeader("content-type", prometheusContentType);
  response.end(prometheusText([server]));
}).listen(9464, "127.0.0.1");
