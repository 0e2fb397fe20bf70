/**
 * An I²C adapter for virtual machines, over simulated parts or a bus of this machine.
 *
 * @example A bus with an EEPROM and a temperature sensor
 * ```ts
 * import { Eeprom, I2cDevice, Lm75, SimulatedI2cBus } from "@vhost/user/devices/i2c";
 *
 * const sensor = new Lm75(0x48, 21.5);
 * const device = new I2cDevice({ bus: new SimulatedI2cBus([new Eeprom({ size: 256 }), sensor]) });
 * sensor.temperature = 30;
 * ```
 *
 * @module
 */

export { BackedBytes } from "../backed_bytes.ts";
export * from "./bus.ts";
export * from "./device.ts";
export * from "./eeprom.ts";
export * from "./host_bus.ts";
export * from "./layout.ts";
export * from "./lm75.ts";
