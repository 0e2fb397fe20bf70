/**
 * Metrics as text for Prometheus.
 *
 * @module
 */

import { latencyBounds } from "../backend/ring_counters.ts";
import type { ServerMetrics } from "../backend/server_metrics.ts";
import {
  type Labels,
  type MetricInfo,
  metrics,
  prometheusName,
  requestDuration,
  usedRings,
} from "./catalogue.ts";

/** The `Content-Type` of {@link prometheusText}. */
export const prometheusContentType = "text/plain; version=0.0.4; charset=utf-8";

/** Something with figures, such as a `Server`. */
export interface Measured {
  /** Its figures. */
  readonly metrics: ServerMetrics;
}

/** Prometheus text format 0.0.4: in the value of a label, backslash, quote and line feed are escaped. */
function escapeValue(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function sample(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeValue(text)}"`);
  return `${name}{${pairs.join(",")}} ${value}`;
}

function* head(info: MetricInfo): Iterable<string> {
  const name = prometheusName(info);
  yield `# HELP ${name} ${info.help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}`;
  yield `# TYPE ${name} ${info.type}`;
}

function* histogram(servers: readonly ServerMetrics[]): Iterable<string> {
  const name = prometheusName(requestDuration);
  const rings = usedRings(servers).filter(({ counters }) => counters.measuring || counters.latencySum > 0);
  if (rings.length === 0) return;
  yield* head(requestDuration);
  for (const { labels, counters } of rings) {
    // Taken at once, so that the sum of the buckets is the count.
    const buckets = counters.latencies;
    const sum = counters.latencySum / 1e6;
    let count = 0;
    for (let i = 0; i < buckets.length; i++) {
      count += buckets[i];
      const le = i < latencyBounds.length ? String(latencyBounds[i] / 1e6) : "+Inf";
      yield sample(`${name}_bucket`, { ...labels, le }, count);
    }
    yield sample(`${name}_sum`, labels, sum);
    yield sample(`${name}_count`, labels, count);
  }
}

/**
 * The figures of servers in Prometheus's text format 0.0.4.
 *
 * @example An answer to Prometheus
 * ```ts
 * import { serve } from "@vhost/user";
 * import { RngDevice } from "@vhost/user/devices/rng";
 * import { prometheusContentType, prometheusText } from "@vhost/user/metrics";
 *
 * const server = await serve(new RngDevice(), { socketPath: `/tmp/rng-${crypto.randomUUID()}.sock`, measure: true });
 * const headers = { "content-type": prometheusContentType };
 * // For Deno.serve(), and other HTTP servers:
 * const answer = () => new Response(prometheusText([server]), { headers });
 * if (!(await answer().text()).includes("# TYPE")) throw new Error("no figures");
 * server.close();
 * ```
 */
export function prometheusText(measured: readonly Measured[]): string {
  const servers = measured.map(({ metrics }) => metrics);
  const lines: string[] = [];
  for (const metric of metrics) {
    const samples = metric.read(servers);
    if (samples.length === 0) continue;
    lines.push(...head(metric));
    for (const { labels, value } of samples) lines.push(sample(prometheusName(metric), labels, value));
  }
  lines.push(...histogram(servers));
  return lines.map((line) => `${line}\n`).join("");
}
