/**
 * Metrics through OpenTelemetry.
 *
 * @module
 */

import { latencyBounds } from "../backend/ring_counters.ts";
import { type Labels, metrics, requestDuration, usedRings } from "./catalogue.ts";
import type { Measured } from "./prometheus.ts";

/** What a meter says of an instrument. */
export interface InstrumentOptions {
  /** What it is. */
  description?: string;
  /** Unit, in the letters of UCUM. */
  unit?: string;
  /** Hints. */
  advice?: { explicitBucketBoundaries?: number[] };
}

/** An instrument that is read when metrics are collected. */
export interface ObservableLike {
  /** Calls back to read it. */
  addCallback(callback: (result: ObservableResultLike) => void): void;
  /** Ends that. */
  removeCallback(callback: (result: ObservableResultLike) => void): void;
}

/** Where figures are put. */
export interface ObservableResultLike {
  /** A figure. */
  observe(value: number, labels?: Labels): void;
}

/** What is needed of a `Meter` of OpenTelemetry's API (`@opentelemetry/api`), which this package does not depend on. */
export interface MeterLike {
  /** A counter that is read. */
  createObservableCounter(name: string, options?: InstrumentOptions): ObservableLike;
  /** A gauge that is read. */
  createObservableGauge(name: string, options?: InstrumentOptions): ObservableLike;
  /** A histogram that is written. */
  createHistogram(
    name: string,
    options?: InstrumentOptions,
  ): { record(value: number, labels?: Labels): void };
}

/** Deno asks every thread when it collects, and waits until all have answered: how long they may take, ms. */
const BREATH = 50;

/** What a latency of a bucket is taken for, s: the middle of the bucket, so that it falls into it again. */
function middle(bucket: number): number {
  const to = latencyBounds[Math.min(bucket, latencyBounds.length - 1)];
  if (bucket >= latencyBounds.length) return 1.5 * to / 1e6;
  const from = bucket === 0 ? 0 : latencyBounds[bucket - 1];
  return (from + to) / 2 / 1e6;
}

/**
 * Hands a server's figures to a meter of OpenTelemetry, whenever that is collected, and has latencies measured. Deno exports them
 * by itself (`OTEL_DENO=true`).
 *
 * OpenTelemetry has no histograms that are read: at each collection it is given as many latencies as were measured since the one
 * before, each as the middle of its bucket. That is right within a sixth.
 *
 * @example
 * ```ts
 * import { metrics } from "npm:@opentelemetry/api@1.10.0";
 * import { serve } from "@vhost/user";
 * import { RngDevice } from "@vhost/user/devices/rng";
 * import { observe } from "@vhost/user/metrics";
 *
 * const server = await serve(new RngDevice(), { socketPath: `/tmp/rng-${crypto.randomUUID()}.sock` });
 * const stop = observe(server, metrics.getMeter("my-device"));
 * // … and when it is no longer needed:
 * stop();
 * server.close();
 * ```
 *
 * @returns a function that ends it
 */
export function observe(measured: Measured, meter: MeterLike): () => void {
  const servers = [measured.metrics];
  measured.metrics.measuring = true;
  for (const thread of measured.metrics.threads) thread.breathe(BREATH);
  const histogram = meter.createHistogram(requestDuration.name, {
    description: requestDuration.help,
    unit: requestDuration.unit,
    advice: { explicitBucketBoundaries: latencyBounds.map((us) => us / 1e6) },
  });
  /** What the histogram was given, by ring. */
  const given = new Map<unknown, Float64Array>();
  const recordLatencies = (): void => {
    for (const { labels, counters } of usedRings(servers)) {
      const now = counters.latencies;
      const before = given.get(counters);
      given.set(counters, now);
      for (let bucket = 0; bucket < now.length; bucket++) {
        const fresh = now[bucket] - (before?.[bucket] ?? 0);
        for (let n = 0; n < fresh; n++) histogram.record(middle(bucket), labels);
      }
    }
  };
  const ends = metrics.map((metric, index) => {
    const { name, unit, help: description } = metric;
    const options = { unit, description };
    const instrument = metric.type === "counter"
      ? meter.createObservableCounter(name, options)
      : meter.createObservableGauge(name, options);
    const callback = (result: ObservableResultLike): void => {
      for (const { labels, value } of metric.read(servers)) result.observe(value, labels);
      // Not from here: what is being collected is locked.
      if (index === 0) queueMicrotask(recordLatencies);
    };
    instrument.addCallback(callback);
    return () => instrument.removeCallback(callback);
  });
  return () => ends.forEach((end) => end());
}
