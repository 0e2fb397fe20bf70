/**
 * An SPI controller for virtual machines, over simulated parts or a part of this machine.
 *
 * @example A flash memory of 1 MiB
 * ```ts
 * import { SimulatedSpiBus, SpiDevice, SpiFlash } from "@vhost/user/devices/spi";
 *
 * const flash = new SpiFlash({ size: 1 << 20, onWrite: (offset, length) => console.log(offset, length) });
 * const device = new SpiDevice({ bus: new SimulatedSpiBus([flash]) });
 * ```
 *
 * @module
 */

export { BackedBytes } from "../backed_bytes.ts";
export * from "./bus.ts";
export * from "./device.ts";
export * from "./flash.ts";
export * from "./host_bus.ts";
export * from "./layout.ts";
