/**
 * Faults by rule, in any device: see {@link withFaults}.
 *
 * @module
 */

export { type FaultCount, FaultyDevice, type FaultyDeviceOptions, withFaults } from "./faulty_device.ts";
export { type FaultRule, FaultRuleError, type FaultSubject, parseFault } from "./rule.ts";
export type { DeviceSource } from "../backend/threads/messages.ts";
