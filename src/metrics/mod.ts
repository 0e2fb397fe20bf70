/**
 * What servers count, for Prometheus and OpenTelemetry.
 *
 * @example What a server has counted so far
 * ```ts
 * import { serve } from "@vhost/user";
 * import { RngDevice } from "@vhost/user/devices/rng";
 * import { prometheusText } from "@vhost/user/metrics";
 *
 * const server = await serve(new RngDevice(), { socketPath: `/tmp/rng-${crypto.randomUUID()}.sock`, measure: true });
 * const text = prometheusText([server]);
 * if (!/^vhost_user_\w+.* 0$/m.test(text)) throw new Error(`not counted: ${text}`);
 * server.close();
 * ```
 *
 * @module
 */

export {
  type Labels,
  type Metric,
  type MetricInfo,
  metrics,
  type MetricType,
  prometheusName,
  requestDuration,
  type Sample,
} from "./catalogue.ts";
export * from "./open_telemetry.ts";
export * from "./prometheus.ts";
export { latencyBounds, RingCounters } from "../backend/ring_counters.ts";
export { ServerMetrics, type ThreadMetrics } from "../backend/server_metrics.ts";
export { ReactorCounters } from "../../ffi/reactor_counters.ts";
