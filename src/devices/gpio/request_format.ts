/**
 * What the requests of a GPIO device are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";
import { GpioMessage, GpioStatus, RESPONSE_SIZE } from "./layout.ts";

const NAMES: ReadonlyMap<number, string> = new Map([
  [GpioMessage.GET_LINE_NAMES, "names"],
  [GpioMessage.GET_DIRECTION, "get-direction"],
  [GpioMessage.SET_DIRECTION, "set-direction"],
  [GpioMessage.GET_VALUE, "get-value"],
  [GpioMessage.SET_VALUE, "set-value"],
  [GpioMessage.SET_IRQ_TYPE, "set-irq-type"],
]);

/** Kinds of request of a GPIO device, and how they fail: by the status in the first byte (virtio 1.4, 5.17.6). */
export const gpioRequests: RequestFormat = {
  device: "gpio",
  kinds: {
    names: { data: [1, 0], fails: true },
    "get-direction": { data: [1, 0], fails: true },
    "set-direction": { fails: true },
    "get-value": { data: [1, 0], fails: true },
    "set-value": { fails: true },
    "set-irq-type": { fails: true },
    event: {},
  },
  kindOf: ({ readable }, { index }) => index === 0 ? NAMES.get(readable.getUint16(0)) : "event",
  errors: { EIO: GpioStatus.ERR },
  fail: (chain, _queue, status) => {
    chain.writable.clearBytes(0, RESPONSE_SIZE);
    chain.writable.setUint8(0, status);
    chain.written = RESPONSE_SIZE;
  },
};
