/**
 * A platform's sensors and clocks for virtual machines, by SCMI.
 *
 * @example A temperature sensor and a clock
 * ```ts
 * import { clockProtocol, ScmiDevice, sensorProtocol, SimulatedScmiClock, SimulatedSensor } from "@vhost/user/devices/scmi";
 *
 * const sensor = new SimulatedSensor("soc", 41.5);
 * const clock = new SimulatedScmiClock({ name: "uart", rate: 48_000_000 });
 * const device = new ScmiDevice({ protocols: [sensorProtocol([sensor]), clockProtocol([clock])] });
 * sensor.value = 60;
 * ```
 *
 * @module
 */

export * from "./clocks.ts";
export * from "./device.ts";
export * from "./protocol.ts";
export * from "./sensors.ts";
