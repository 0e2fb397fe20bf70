/**
 * A SCSI host with disks for virtual machines, over any storage.
 *
 * @example A host with two disks in memory
 * ```ts
 * import { MemoryStorage, ScsiDevice } from "@vhost/user/devices/scsi";
 *
 * const host = new ScsiDevice({
 *   units: [{ storage: new MemoryStorage(64 * 2 ** 20), id: "first" }, { storage: new MemoryStorage(2 ** 20) }],
 * });
 * host.close();
 * ```
 *
 * @module
 */

export { ScsiDevice, type ScsiOptions } from "./host.ts";
export * from "./layout.ts";
export { ScsiStatus, SenseKey } from "./sense.ts";
export type { ScsiUnitOptions } from "./unit.ts";
export * from "../storage/mod.ts";
