/**
 * What the requests of a sound card are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";
import { SoundQueue, SoundStatus, TRANSFER_STATUS_SIZE } from "./layout.ts";

const NAMES: ReadonlyMap<number, string> = new Map([
  [SoundQueue.CONTROL, "control"],
  [SoundQueue.EVENT, "event"],
  [SoundQueue.TX, "playback"],
  [SoundQueue.RX, "capture"],
]);
/** Bytes of the status of a control request. */
const STATUS = 4;

/** Rings of a sound card, and how their requests fail: by the status in front, or behind what was recorded (virtio 1.4, 5.14.6). */
export const soundRequests: RequestFormat = {
  device: "sound",
  kinds: {
    control: { data: [STATUS, 0], fails: true },
    event: {},
    playback: { fails: true },
    capture: { data: [0, TRANSFER_STATUS_SIZE], fails: true },
  },
  kindOf: (_chain, { index }) => NAMES.get(index),
  errors: { EIO: SoundStatus.IO_ERR, EINVAL: SoundStatus.BAD_MSG, EOPNOTSUPP: SoundStatus.NOT_SUPP },
  success: SoundStatus.OK,
  fail: (chain, { index }, status) => {
    const { writable } = chain;
    const size = index === SoundQueue.CONTROL ? STATUS : TRANSFER_STATUS_SIZE;
    const at = index === SoundQueue.RX ? writable.byteLength - size : 0;
    writable.clearBytes(at, size);
    writable.setUint32(at, status);
    chain.written = size;
  },
};
