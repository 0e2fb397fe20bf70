/**
 * What the requests of an SPI controller are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";
import { SpiResult } from "./layout.ts";

/** Transfers of an SPI controller, and how they fail: by the result in the last byte (virtio 1.4, 5.25). */
export const spiRequests: RequestFormat = {
  device: "spi",
  kinds: { transfer: { data: [0, 1], fails: true } },
  kindOf: () => "transfer",
  errors: { EIO: SpiResult.TRANS_ERR, EINVAL: SpiResult.PARAM_ERR },
  fail: (chain, _queue, status) => {
    const last = chain.writable.byteLength - 1;
    chain.writable.setUint8(last, status);
    chain.writable.clearBytes(0, last);
    chain.written = last + 1;
  },
};
