/**
 * What the requests of a clock are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";
import { RtcStatus } from "./layout.ts";

/** Bytes in front of every answer: u8 status, 7 bytes unused. */
const HEAD = 8;

/** Rings of a clock, and how requests fail: by the status in the first byte (virtio 1.4, 5.23). */
export const rtcRequests: RequestFormat = {
  device: "rtc",
  kinds: { request: { data: [HEAD, 0], fails: true }, alarm: {} },
  kindOf: (_chain, { index }) => index === 0 ? "request" : "alarm",
  errors: {
    EIO: RtcStatus.EIO,
    EINVAL: RtcStatus.EINVAL,
    ENODEV: RtcStatus.ENODEV,
    EOPNOTSUPP: RtcStatus.EOPNOTSUPP,
  },
  fail: (chain, _queue, status) => {
    const { writable } = chain;
    writable.setUint8(0, status);
    writable.clearBytes(1, writable.byteLength - 1);
    chain.written = writable.byteLength;
  },
};
