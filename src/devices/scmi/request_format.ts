/**
 * What the requests of an SCMI platform are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";
import { ScmiStatus } from "./protocol.ts";

/** Bytes of a message's header, which the answer repeats; its status is behind it. */
const HEADER = 4;

/** Rings of an SCMI platform, and how commands fail: by their status (SCMI 3.2, 4.1; virtio 1.4, 5.19). */
export const scmiRequests: RequestFormat = {
  device: "scmi",
  kinds: { command: { data: [HEADER + 4, 0], fails: true }, event: {} },
  kindOf: (_chain, { index }) => index === 0 ? "command" : "event",
  errors: {
    EIO: ScmiStatus.HARDWARE_ERROR,
    EBUSY: ScmiStatus.BUSY,
    EACCES: ScmiStatus.DENIED,
    ENOENT: ScmiStatus.NOT_FOUND,
    EOPNOTSUPP: ScmiStatus.NOT_SUPPORTED,
  },
  fail: (chain, _queue, status) => {
    chain.writable.setUint32(0, chain.readable.getUint32(0));
    chain.writable.setUint32(HEADER, status >>> 0);
    chain.written = HEADER + 4;
  },
};
