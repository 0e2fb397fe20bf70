/**
 * What the requests of an I²C adapter are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";
import { I2cFlag, I2cStatus } from "./layout.ts";

/** Segments of an I²C adapter, and how they fail: by the status in the last byte (virtio 1.4, 5.18.6). */
export const i2cRequests: RequestFormat = {
  device: "i2c",
  kinds: { read: { data: [0, 1], fails: true }, write: { fails: true } },
  kindOf: ({ readable }) => (readable.getUint32(4) & I2cFlag.M_RD) !== 0 ? "read" : "write",
  errors: { EIO: I2cStatus.ERR },
  fail: (chain, _queue, status) => {
    const last = chain.writable.byteLength - 1;
    chain.writable.setUint8(last, status);
    chain.writable.clearBytes(0, last);
    chain.written = last + 1;
  },
};
