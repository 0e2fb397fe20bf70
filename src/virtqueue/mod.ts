/**
 * Rings and requests: what a device handles, and the rings by themselves for those who build on them.
 *
 * @example A structure read from a request
 * ```ts
 * import { type Chain, Struct, u16, u32 } from "@vhost/user/virtqueue";
 *
 * const request = new Struct<{ type: number; line: number; value: number }>({ type: u16, line: u16, value: u32 });
 * export function handle(chain: Chain) {
 *   const { type } = chain.readStruct(request);
 *   chain.write(new Uint8Array([type === 4 ? 0 : 1]));
 * }
 * ```
 *
 * @module
 */

export * from "./big_endian_split_ring.ts";
export * from "./chain.ts";
export { type InflightRegion, inflightRegionSize } from "./inflight.ts";
export * from "./packed_layout.ts";
export * from "./packed_ring.ts";
export * from "./ring.ts";
export type { DescriptorDump, RingDump } from "./ring_dump.ts";
export * from "./split_layout.ts";
export * from "./split_ring.ts";
export type { AddressSpace } from "../memory/address_space.ts";
export { DirtyLog, LOG_PAGE } from "../memory/dirty_log.ts";
export { GuestMemory, type RegionSource } from "../memory/guest_memory.ts";
export { MemoryError, Region, type RegionPlace } from "../memory/region.ts";
export { Span } from "../memory/span.ts";
export { Segments } from "../memory/segments.ts";
export * from "../protocol/struct.ts";
export { Iovec } from "../../ffi/iovec.ts";
export { FieldError } from "../protocol/error.ts";
export { Collage, type Pages } from "../../ffi/mapping.ts";
