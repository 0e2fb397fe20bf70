/**
 * The other side: connects to any vhost-user back-end, shares memory with it and drives its rings. For tests, tools and
 * virtual machine monitors.
 *
 * @module
 */

export * from "./driver_queue.ts";
export * from "./driver_ring.ts";
export * from "./front_end.ts";
export * from "./guest_ring.ts";
export type { SharedRegion } from "./memory_table.ts";
export type { FrontEndOptions, QueueOptions } from "./options.ts";
export * from "./packed_driver_ring.ts";
export { BackendGoneError, type ReconnectOptions } from "./reconnect.ts";
export { LostFeaturesError } from "./session.ts";
export * from "./shared_memory.ts";
export * from "./split_driver_ring.ts";
export { Connection, type Message, type PartialMessage, type Tap } from "../transport/connection.ts";
export { type AnswerOf, type Handler, type Handlers, Reply } from "../transport/responder.ts";
export type { Answer } from "../transport/requester.ts";
export { DescriptorBag } from "../../ffi/fd.ts";
export { type Looker, Reactor } from "../../ffi/reactor.ts";
