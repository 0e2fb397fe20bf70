/**
 * What the requests of a socket device are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";
import { VSOCK_HEADER_SIZE } from "./layout.ts";

const RINGS = ["rx", "tx", "event"] as const;

/** Rings of a socket device: packets to the driver and from it, events (virtio 1.4, 5.10.2). */
export const vsockRequests: RequestFormat = {
  device: "vsock",
  kinds: { rx: { data: [VSOCK_HEADER_SIZE, 0] }, tx: {}, event: {} },
  kindOf: (_chain, { index }) => RINGS[index],
};
