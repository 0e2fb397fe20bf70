/**
 * What servers count, for Prometheus and OpenTelemetry.
 *
 * @example
 * ```ts ignore
 * import { prometheusText } from "@vhost/user/metrics";
 *
 * const server = await serve(device, { socketPath: "/tmp/device.sock", measure: true });
 * console.log(prometheusText([server]));
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
