/**
 * GPIO lines for virtual machines: simulated ones, or those of a chip of this machine.
 *
 * @example Eight lines, of which the first drives the second
 * ```ts
 * import { GpioDevice, GpioLines } from "@vhost/user/devices/gpio";
 *
 * const lines = new GpioLines(8);
 * lines.wire(0, 1);
 * const device = new GpioDevice({ chip: lines });
 * ```
 *
 * @module
 */

export * from "./chip.ts";
export * from "./device.ts";
export * from "./host_chip.ts";
export * from "./layout.ts";
export * from "./lines.ts";
