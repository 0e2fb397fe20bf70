/**
 * Faults by rule, in any device: see {@link withFaults}.
 *
 * @example A disk that fails every write
 * ```ts
 * import { BlkDevice, MemoryStorage } from "@vhost/user/devices/blk";
 * import { withFaults } from "@vhost/user/faults";
 * import { TestDriver } from "@vhost/user/testing";
 *
 * const disk = new BlkDevice({ storage: new MemoryStorage(1 << 20) });
 * await using driver = await TestDriver.attach(withFaults(disk, ["blk.write:error=EIO"]));
 * const write = new Uint8Array(16 + 512);
 * write[0] = 1; // VIRTIO_BLK_T_OUT, to sector 0
 * const [status] = await driver.request(0, write, 1);
 * if (status !== 1) throw new Error(`status ${status}, not VIRTIO_BLK_S_IOERR`);
 * ```
 *
 * @module
 */

export { type FaultCount, FaultyDevice, type FaultyDeviceOptions, withFaults } from "./faulty_device.ts";
export { type FaultRule, FaultRuleError, type FaultSubject, parseFault } from "./rule.ts";
export type { DeviceSource } from "../backend/threads/messages.ts";
