/**
 * A disk for virtual machines, over any storage.
 *
 * @example A disk in memory
 * ```ts
 * import { BlkDevice, MemoryStorage } from "@vhost/user/devices/blk";
 *
 * const disk = new BlkDevice({ storage: new MemoryStorage(64 * 2 ** 20), id: "scratch" });
 * disk.close();
 * ```
 *
 * @module
 */

export * from "./disk.ts";
export * from "./layout.ts";
export * from "../storage/mod.ts";
