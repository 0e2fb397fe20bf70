import { defineDevice, type Device, type DeviceDefinition } from "../../mod.ts";

/** A device that answers with what it was sent; its type number has no meaning to our front-end. */
export function echoDevice(definition: Partial<DeviceDefinition> = {}): Device {
  return defineDevice({ type: 63, queues: [(chain) => chain.write(chain.read())], ...definition });
}
