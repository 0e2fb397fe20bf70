/**
 * Where a disk's bytes are: what the disks of all kinds have in common.
 *
 * @module
 */

export type { ChunkStore } from "./chunk_store.ts";
export * from "./chunked_storage.ts";
export * from "./file_storage.ts";
export * from "./memory_storage.ts";
export * from "./null_storage.ts";
export * from "./overlay_chunks.ts";
export { type Completion, SECTOR, type Storage, type StorageSource } from "./storage.ts";
export * from "./storage_access.ts";
export * from "./uri.ts";
