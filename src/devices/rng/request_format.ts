/**
 * What the requests of an entropy device are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";

/** Requests of an entropy device: room for bytes (virtio 1.4, 5.4.2). */
export const rngRequests: RequestFormat = {
  device: "rng",
  kinds: { read: { data: [0, 0] } },
  kindOf: () => "read",
};
