/**
 * The other side: connects to any vhost-user back-end, shares memory with it and drives its rings. For tests, tools and
 * virtual machine monitors.
 *
 * @example A request to a device that answers with what it was sent
 * ```ts
 * import { defineDevice, serve } from "@vhost/user";
 * import { FrontEnd, SharedMemory } from "@vhost/user/frontend";
 *
 * // Somebody to talk to; any back-end will do.
 * const socketPath = `/tmp/echo-${crypto.randomUUID()}.sock`;
 * const echo = defineDevice({ type: 63, queues: [(chain) => chain.write(chain.read())] });
 * const server = await serve(echo, { socketPath });
 *
 * const frontEnd = await FrontEnd.connect(socketPath);
 * const memory = new SharedMemory(1 << 20);
 * await frontEnd.shareMemory(memory);
 * const queue = await frontEnd.startQueue(0, memory, { size: 64 });
 * await frontEnd.driverOk();
 *
 * const [question, answer] = [memory.allocate(4), memory.allocate(4)];
 * question.bytes.set([1, 2, 3, 4]);
 * const written = await queue.request(
 *   [{ guestAddress: question.guestAddress, length: 4 }],
 *   [{ guestAddress: answer.guestAddress, length: 4 }],
 * );
 * if (written !== 4 || answer.bytes[3] !== 4) throw new Error("no echo");
 *
 * frontEnd.close();
 * memory.close();
 * server.close();
 * ```
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
