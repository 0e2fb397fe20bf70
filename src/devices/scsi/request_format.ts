/**
 * What the requests of a SCSI host are, for those who do not know the device.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";
import { FIRST_REQUEST_QUEUE, REQUEST_SIZE, RESPONSE_SIZE, ScsiResponse, SENSE_SIZE } from "./layout.ts";

/** Commands that move data, by their first byte: READ and WRITE of 6, 10, 12 and 16 bytes; SYNCHRONIZE CACHE. */
const COMMANDS: ReadonlyMap<number, string> = new Map([
  ...[0x08, 0x28, 0xa8, 0x88].map((code) => [code, "read"] as const),
  ...[0x0a, 0x2a, 0xaa, 0x8a].map((code) => [code, "write"] as const),
  ...[0x35, 0x91].map((code) => [code, "flush"] as const),
]);

/**
 * Kinds of request of a SCSI host. Commands fail with a response, as if they had not come to the unit, and without sense data (virtio
 * 1.4, 5.6.6.1).
 */
export const scsiRequests: RequestFormat = {
  device: "scsi",
  kinds: {
    read: { data: [RESPONSE_SIZE + SENSE_SIZE, 0], fails: true },
    write: { fails: true },
    flush: { fails: true },
    command: { data: [RESPONSE_SIZE + SENSE_SIZE, 0], fails: true },
    control: {},
    event: {},
  },
  kindOf: ({ readable }, { index }) => {
    if (index < FIRST_REQUEST_QUEUE) return index === 0 ? "control" : "event";
    return COMMANDS.get(readable.getUint8(REQUEST_SIZE)) ?? "command";
  },
  errors: {
    EIO: ScsiResponse.FAILURE,
    EBUSY: ScsiResponse.BUSY,
    ENODEV: ScsiResponse.BAD_TARGET,
    EREMOTEIO: ScsiResponse.TARGET_FAILURE,
    ENOLINK: ScsiResponse.TRANSPORT_FAILURE,
  },
  fail: (chain, _queue, status) => {
    chain.writable.clearBytes(0, RESPONSE_SIZE);
    chain.writable.setUint8(RESPONSE_SIZE - 1, status);
    chain.written = RESPONSE_SIZE;
  },
};
