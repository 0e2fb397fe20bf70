/**
 * What the requests of a console are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";

/** Rings of a console: text to the driver and from it, and the same for messages about ports (virtio 1.4, 5.3.2). */
export const consoleRequests: RequestFormat = {
  device: "console",
  kinds: { rx: { data: [0, 0] }, tx: {}, "control-rx": {}, "control-tx": {} },
  kindOf: (_chain, { index }) => {
    const direction = (index & 1) === 0 ? "rx" : "tx";
    return index === 2 || index === 3 ? `control-${direction}` : direction;
  },
};
