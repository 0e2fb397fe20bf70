/**
 * Feature bits by device type, for names in traces and reports.
 *
 * @module
 */

import { blkFeatures } from "../devices/blk/layout.ts";
import { consoleFeatures } from "../devices/console/layout.ts";
import { gpioFeatures } from "../devices/gpio/layout.ts";
import { i2cFeatures } from "../devices/i2c/layout.ts";
import { netFeatures } from "../devices/net/layout.ts";
import { scsiFeatures } from "../devices/scsi/layout.ts";
import { soundFeatures } from "../devices/sound/layout.ts";
import { vsockFeatures } from "../devices/vsock/layout.ts";

/** Name of a feature → bit. */
export type FeatureBits = Readonly<Record<string, number>>;

/**
 * Names as `--device` takes them → feature bits of the type (virtio 1.4, section 5). Those of a device that this toolkit
 * has come from the device itself.
 */
export const deviceTypes: Readonly<Record<string, FeatureBits>> = {
  net: netFeatures,
  blk: blkFeatures,
  console: consoleFeatures,
  rng: {},
  scsi: scsiFeatures,
  gpu: { VIRGL: 0, EDID: 1, RESOURCE_UUID: 2, RESOURCE_BLOB: 3, CONTEXT_INIT: 4 },
  input: {},
  vsock: vsockFeatures,
  crypto: {
    REVISION_1: 0,
    CIPHER_STATELESS_MODE: 1,
    HASH_STATELESS_MODE: 2,
    MAC_STATELESS_MODE: 3,
    AEAD_STATELESS_MODE: 4,
    AKCIPHER_STATELESS_MODE: 5,
  },
  snd: soundFeatures,
  fs: { NOTIFICATION: 0 },
  scmi: { P2A_CHANNELS: 0, SHARED_MEMORY: 1 },
  i2c: i2cFeatures,
  gpio: gpioFeatures,
};
