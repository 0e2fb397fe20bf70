/**
 * Devices by the module that makes them.
 *
 * @module
 */

import type { Device } from "../device.ts";
import type { DeviceSource } from "./messages.ts";

/**
 * Loads a module and makes its device.
 *
 * @throws {TypeError} when its default export is neither a device nor a function that makes one
 */
export async function makeDevice({ module, options }: DeviceSource): Promise<Device> {
  const { default: exported } = await import(module) as { default?: unknown };
  const device = typeof exported === "function" ? await exported(options) : exported;
  // Not by its class: the module may have got that from another copy of this package.
  if (typeof (device as Device | undefined)?.connect === "function") return device as Device;
  throw new TypeError(
    `${module}: the default export must be a device, or a function that makes one; got ${
      exported === undefined ? "none" : typeof device
    }`,
  );
}
