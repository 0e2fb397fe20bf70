/**
 * The I²C adapter.
 *
 * @module
 */

import { Device } from "../../backend/device.ts";
import { has, mask } from "../../protocol/features.ts";
import type { I2cBus } from "./bus.ts";
import { i2cFeatures } from "./layout.ts";
import { I2cRequests } from "./requests.ts";
import { i2cRequests } from "./request_format.ts";

/** What an adapter is made of. */
export interface I2cOptions {
  /** What is behind it; stays the caller's. */
  readonly bus: I2cBus;
  /** Told of exceptions in the bus; the guest's request has failed then. */
  readonly onError?: (error: unknown) => void;
}

/** An I²C adapter for virtual machines (virtio device 34). Several guests may have the bus, each with whole transactions. */
export class I2cDevice extends Device {
  /** Makes one. */
  constructor(options: I2cOptions) {
    const { bus, onError = () => {} } = options;
    super({
      type: 34,
      name: "i2c",
      requests: i2cRequests,
      features: mask(i2cFeatures.ZERO_LENGTH_REQUEST),
      connect: () => ({
        queues: [new I2cRequests(bus, onError)],
        negotiated: (features) => {
          // Without it the direction is not in the request (virtio 1.4, 5.18.6.4).
          if (!has(features, i2cFeatures.ZERO_LENGTH_REQUEST)) {
            throw new Error("the driver must accept VIRTIO_I2C_F_ZERO_LENGTH_REQUEST (bit 0)");
          }
        },
      }),
    });
  }
}
