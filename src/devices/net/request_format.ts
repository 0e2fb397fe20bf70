/**
 * What the requests of a network card are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";
import { NET_HEADER_SIZE } from "./layout.ts";

/** Rings of a network card: frames to the driver (`rx`) and from it (`tx`), pair after pair (virtio 1.4, 5.1.2). */
export const netRequests: RequestFormat = {
  device: "net",
  kinds: { rx: { data: [NET_HEADER_SIZE, 0] }, tx: {} },
  kindOf: (_chain, { index }) => (index & 1) === 0 ? "rx" : "tx",
};
