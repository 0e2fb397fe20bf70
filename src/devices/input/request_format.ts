/**
 * What the requests of an input device are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";

/** Rings of an input device: events to the driver, and what it says of lights and sounds (virtio 1.4, 5.8.2). */
export const inputRequests: RequestFormat = {
  device: "input",
  kinds: { event: { data: [0, 0] }, status: {} },
  kindOf: (_chain, { index }) => index === 0 ? "event" : "status",
};
