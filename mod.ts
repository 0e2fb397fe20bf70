/**
 * A vhost-user back-end toolkit: virtio devices for virtual machines, written in TypeScript.
 *
 * @example A complete entropy device
 * ```ts ignore
 * import { defineDevice, serve } from "@vhost/user";
 *
 * const rng = defineDevice({
 *   type: 4,
 *   queues: [(chain) => chain.write((bytes) => crypto.getRandomValues(bytes))],
 * });
 *
 * await serve(rng, { socketPath: "/tmp/rng.sock" });
 * ```
 *
 * @example A device asked by a driver in the same process
 * ```ts
 * import { defineDevice } from "@vhost/user";
 * import { TestDriver } from "@vhost/user/testing";
 *
 * const upperCase = defineDevice({
 *   type: 63,
 *   queues: [(chain) => {
 *     const text = new TextDecoder().decode(chain.read());
 *     chain.write(new TextEncoder().encode(text.toUpperCase()));
 *   }],
 * });
 * await using driver = await TestDriver.attach(upperCase);
 * const answer = await driver.request(0, new TextEncoder().encode("hello"), 16);
 * if (new TextDecoder().decode(answer) !== "HELLO") throw new Error("not in upper case");
 * ```
 *
 * @module
 */

export * from "./src/backend/device.ts";
export * from "./src/backend/log.ts";
export type { BrokenRing } from "./src/backend/broken_ring.ts";
export { latencyBounds, RingCounters } from "./src/backend/ring_counters.ts";
export { ServerMetrics, type ThreadMetrics } from "./src/backend/server_metrics.ts";
export type { StateKeeper } from "./src/backend/device_state.ts";
export { SharedWindows } from "./src/backend/shared_windows.ts";
export {
  describeTakeover,
  serve,
  type ServeOptions,
  Server,
  SocketInUseError,
  type TakenOver,
} from "./src/backend/server.ts";
export { TakeoverError } from "./src/backend/takeover/messages.ts";
export { Session } from "./src/backend/session.ts";
export {
  defaultLimits,
  type Limit,
  type LimitName,
  type Limits,
  limitsOf,
  limitTable,
} from "./src/backend/limits.ts";
export type { SessionOptions } from "./src/backend/session_state.ts";
export { Chain, type Fill } from "./src/virtqueue/chain.ts";
export { RingError, type RingErrorPlace } from "./src/virtqueue/ring.ts";
export type { DescriptorDump, RingDump } from "./src/virtqueue/ring_dump.ts";
export { Span } from "./src/memory/span.ts";
export { Segments } from "./src/memory/segments.ts";
export { ProtocolError } from "./src/protocol/error.ts";
export { type Confined, Confinement, type FileAccess, type FileNeed, type Needs } from "./ffi/confinement.ts";
export { OsError } from "./ffi/os_error.ts";
export { DescriptorBag } from "./ffi/fd.ts";
export { Iovec } from "./ffi/iovec.ts";
export { type Looker, Reactor } from "./ffi/reactor.ts";
export { ReactorCounters } from "./ffi/reactor_counters.ts";
export { Connection, type Message, type PartialMessage, type Tap } from "./src/transport/connection.ts";
