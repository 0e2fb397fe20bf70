/**
 * Clocks for virtual machines: this machine's, or simulated ones.
 *
 * @example This machine's clocks
 * ```ts
 * import { RtcDevice } from "@vhost/user/devices/rtc";
 *
 * const device = new RtcDevice();
 * ```
 *
 * @module
 */

export * from "./clock.ts";
export * from "./device.ts";
export * from "./layout.ts";
