/**
 * Every metric: its name, what it counts, and where that is read.
 *
 * @module
 */

import type { RingCounters } from "../backend/ring_counters.ts";
import type { ServerMetrics, ThreadMetrics } from "../backend/server_metrics.ts";

/** What a figure can do: a counter only grows, a gauge goes up and down. */
export type MetricType = "counter" | "gauge" | "histogram";

/** Which one of several things a figure is of. */
export type Labels = Readonly<Record<string, string>>;

/** A figure. */
export interface Sample {
  /** Of what. */
  readonly labels: Labels;
  /** How much, in the metric's unit. */
  readonly value: number;
}

/** What is known of a metric. */
export interface MetricInfo {
  /** Name in OpenTelemetry; {@link prometheusName} makes that of Prometheus. */
  readonly name: string;
  /** What it can do. */
  readonly type: MetricType;
  /** Unit, in the letters of UCUM: `By` bytes, `s` seconds, `{request}` a number of requests. */
  readonly unit: string;
  /** What it is, in a line. */
  readonly help: string;
  /** Names of its labels. */
  readonly labels: readonly string[];
}

/** A metric that is a number. */
export interface Metric extends MetricInfo {
  /** What it can do. */
  readonly type: "counter" | "gauge";
  /** Its figures, of some servers. */
  read(servers: readonly ServerMetrics[]): Sample[];
}

const SERVER_LABELS = ["device", "socket"] as const;
const RING_LABELS = [...SERVER_LABELS, "ring"] as const;

/** The labels of a server. */
function serverLabels({ device, socket }: ServerMetrics): Labels {
  return { device, socket };
}

/** A ring of a server. */
export interface LabelledRing {
  /** Of what. */
  readonly labels: Labels;
  /** Its counters. */
  readonly counters: RingCounters;
}

/** The rings that had any request, or broke before that. */
export function usedRings(servers: readonly ServerMetrics[]): LabelledRing[] {
  return servers.flatMap((server) =>
    server.rings.flatMap((counters, index) => {
      const used = counters.taken > 0 || counters.kicks > 0 || counters.broken > 0;
      return used ? [{ labels: { ...serverLabels(server), ring: String(index) }, counters }] : [];
    })
  );
}

function perServer(
  type: "counter" | "gauge",
  name: string,
  unit: string,
  help: string,
  value: (server: ServerMetrics) => number,
): Metric {
  const read = (servers: readonly ServerMetrics[]): Sample[] =>
    servers.map((server) => ({ labels: serverLabels(server), value: value(server) }));
  return { name, type, unit, help, labels: SERVER_LABELS, read };
}

function perRing(
  type: "counter" | "gauge",
  name: string,
  unit: string,
  help: string,
  value: (counters: RingCounters) => number,
): Metric {
  const read = (servers: readonly ServerMetrics[]): Sample[] =>
    usedRings(servers).map(({ labels, counters }) => ({ labels, value: value(counters) }));
  return { name, type, unit, help, labels: RING_LABELS, read };
}

/** Threads; that of the servers is nobody's, and told of once. */
function perThread(
  name: string,
  unit: string,
  help: string,
  value: (thread: ThreadMetrics) => number,
): Metric {
  const read = (servers: readonly ServerMetrics[]): Sample[] => {
    const seen = new Set<unknown>();
    return servers.flatMap(({ device, socket, threads }) =>
      threads.flatMap((each) => {
        if (seen.has(each.counters.shared)) return [];
        seen.add(each.counters.shared);
        const main = each.thread === "main";
        const labels: Labels = main ? {} : { device, socket };
        return [{ labels: { ...labels, thread: each.thread }, value: value(each) }];
      })
    );
  };
  return { name, type: "counter", unit, help, labels: [...SERVER_LABELS, "thread"], read };
}

/** All metrics but {@link requestDuration}. */
export const metrics: readonly Metric[] = [
  perServer(
    "counter",
    "vhost_user.sessions",
    "{session}",
    "Front-ends that have connected.",
    ({ sessionsOpened }) => sessionsOpened,
  ),
  perServer(
    "gauge",
    "vhost_user.sessions.active",
    "{session}",
    "Front-ends that are connected.",
    ({ sessionsOpened, sessionsEnded }) => sessionsOpened - sessionsEnded,
  ),
  perServer(
    "counter",
    "vhost_user.sessions.failed",
    "{session}",
    "Front-ends that were dropped for what they did.",
    ({ sessionsFailed }) => sessionsFailed,
  ),
  perRing(
    "counter",
    "vhost_user.requests",
    "{request}",
    "Requests taken from the driver.",
    ({ taken }) => taken,
  ),
  perRing(
    "counter",
    "vhost_user.requests.returned",
    "{request}",
    "Requests returned to the driver.",
    ({ returned }) => returned,
  ),
  perRing(
    "counter",
    "vhost_user.requests.dropped",
    "{request}",
    "Requests that the device had to give up, as their ring was stopped or the front-end left.",
    ({ dropped }) => dropped,
  ),
  perRing(
    "counter",
    "vhost_user.requests.failed",
    "{request}",
    "Requests whose handler failed; they were returned all the same.",
    ({ failed }) => failed,
  ),
  perRing(
    "gauge",
    "vhost_user.requests.in_flight",
    "{request}",
    "Requests taken and neither returned nor dropped.",
    ({ taken, returned, dropped }) => taken - returned - dropped,
  ),
  perRing(
    "counter",
    "vhost_user.read",
    "By",
    "What drivers have sent in requests, headers included.",
    ({ readable }) => readable,
  ),
  perRing(
    "counter",
    "vhost_user.written",
    "By",
    "What the device has written to requests, as it told the driver.",
    ({ written }) => written,
  ),
  perRing(
    "counter",
    "vhost_user.kicks",
    "{kick}",
    "Times that the driver's kicks were noticed.",
    ({ kicks }) => kicks,
  ),
  perRing(
    "counter",
    "vhost_user.notifications",
    "{notification}",
    "Notifications sent to the driver.",
    ({ notified }) => notified,
  ),
  perRing(
    "counter",
    "vhost_user.rings.broken",
    "{ring}",
    "Times that the driver broke the ring.",
    ({ broken }) => broken,
  ),
  perThread(
    "vhost_user.thread.looks",
    "{look}",
    "Times that the thread looked at its rings, for as long as that pays.",
    ({ counters }) => counters.looks,
  ),
  perThread(
    "vhost_user.thread.naps",
    "{nap}",
    "Naps in the kernel, of a millisecond at most.",
    ({ counters }) => counters.naps,
  ),
  perThread(
    "vhost_user.thread.sleeps",
    "{sleep}",
    "Sleeps with a free event loop.",
    ({ counters }) => counters.sleeps,
  ),
  perThread(
    "vhost_user.thread.waits",
    "{wait}",
    "Waits in the kernel without limit, of a thread that has nothing but rings.",
    ({ counters }) => counters.waits,
  ),
  perThread(
    "vhost_user.thread.events",
    "{event}",
    "Descriptors that the kernel said were ready.",
    ({ counters }) => counters.woken,
  ),
];

/** How long requests take. Its figures are buckets: {@link usedRings} have them. */
export const requestDuration: MetricInfo = {
  name: "vhost_user.request.duration",
  type: "histogram",
  unit: "s",
  help:
    "Time from taking a request to returning it, of a sample of them: all of a ring that has little to do, " +
    "about a thousand a second of a busy one.",
  labels: RING_LABELS,
};

const UNITS: Readonly<Record<string, string>> = { By: "_bytes", s: "_seconds" };

/** The name of a metric in Prometheus: dots are underscores, the unit follows, and `_total` where it only grows. */
export function prometheusName({ name, unit, type }: MetricInfo): string {
  return `${name.replaceAll(".", "_")}${UNITS[unit] ?? ""}${type === "counter" ? "_total" : ""}`;
}
