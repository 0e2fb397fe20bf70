/**
 * Feature bits by device type, for names in traces and reports.
 *
 * @module
 */

import { blkFeatures } from "../devices/blk/layout.ts";
import { consoleFeatures } from "../devices/console/layout.ts";

/** Name of a feature → bit. */
export type FeatureBits = Readonly<Record<string, number>>;

/**
 * Names as `--device` takes them → feature bits of the type (virtio 1.4, section 5). Those of a device that this toolkit
 * has come from the device itself.
 */
export const deviceTypes: Readonly<Record<string, FeatureBits>> = {
  net: {
    CSUM: 0,
    GUEST_CSUM: 1,
    CTRL_GUEST_OFFLOADS: 2,
    MTU: 3,
    MAC: 5,
    GSO: 6,
    GUEST_TSO4: 7,
    GUEST_TSO6: 8,
    GUEST_ECN: 9,
    GUEST_UFO: 10,
    HOST_TSO4: 11,
    HOST_TSO6: 12,
    HOST_ECN: 13,
    HOST_UFO: 14,
    MRG_RXBUF: 15,
    STATUS: 16,
    CTRL_VQ: 17,
    CTRL_RX: 18,
    CTRL_VLAN: 19,
    CTRL_RX_EXTRA: 20,
    GUEST_ANNOUNCE: 21,
    MQ: 22,
    CTRL_MAC_ADDR: 23,
    DEVICE_STATS: 50,
    HASH_TUNNEL: 51,
    VQ_NOTF_COAL: 52,
    NOTF_COAL: 53,
    GUEST_USO4: 54,
    GUEST_USO6: 55,
    HOST_USO: 56,
    HASH_REPORT: 57,
    GUEST_HDRLEN: 59,
    RSS: 60,
    RSC_EXT: 61,
    STANDBY: 62,
    SPEED_DUPLEX: 63,
  },
  blk: blkFeatures,
  console: consoleFeatures,
  rng: {},
  scsi: { INOUT: 0, HOTPLUG: 1, CHANGE: 2, T10_PI: 3 },
  gpu: { VIRGL: 0, EDID: 1, RESOURCE_UUID: 2, RESOURCE_BLOB: 3, CONTEXT_INIT: 4 },
  input: {},
  vsock: { STREAM: 0, SEQPACKET: 1, NO_IMPLIED_STREAM: 2 },
  crypto: {
    REVISION_1: 0,
    CIPHER_STATELESS_MODE: 1,
    HASH_STATELESS_MODE: 2,
    MAC_STATELESS_MODE: 3,
    AEAD_STATELESS_MODE: 4,
    AKCIPHER_STATELESS_MODE: 5,
  },
  snd: { CTLS: 0 },
  fs: { NOTIFICATION: 0 },
  scmi: { P2A_CHANNELS: 0, SHARED_MEMORY: 1 },
  i2c: { ZERO_LENGTH_REQUEST: 0 },
  gpio: { IRQ: 0 },
};
