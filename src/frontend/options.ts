/**
 * How a front-end presents itself, and sets up its rings.
 *
 * @module
 */

import type { Reactor } from "../../ffi/reactor.ts";
import { mask, protocolFeatures, ringFeatures } from "../protocol/features.ts";
import type { backendMessages } from "../protocol/messages.ts";
import type { Endianness } from "../protocol/struct.ts";
import type { Tap } from "../transport/connection.ts";
import type { Handlers } from "../transport/responder.ts";
import type { ReconnectOptions } from "./reconnect.ts";
import type { Wishes } from "./session.ts";

/**
 * Features of the ring that this front-end takes when they are offered. It also understands IN_ORDER, but that makes what is
 * done wait for what is not: who wants it says so ({@link FrontEndOptions.deviceFeatures}).
 */
const KNOWN_RING_FEATURES: bigint = mask(
  ringFeatures.INDIRECT_DESC,
  ringFeatures.EVENT_IDX,
  ringFeatures.PROTOCOL_FEATURES,
  ringFeatures.VERSION_1,
  ringFeatures.RING_PACKED,
);

/** Protocol features that this front-end takes when they are offered. */
const KNOWN_PROTOCOL_FEATURES: bigint = mask(
  protocolFeatures.MQ,
  protocolFeatures.REPLY_ACK,
  protocolFeatures.BACKEND_REQ,
  protocolFeatures.CONFIG,
  protocolFeatures.INFLIGHT_SHMFD,
  protocolFeatures.RESET_DEVICE,
  protocolFeatures.CONFIGURE_MEM_SLOTS,
  protocolFeatures.CROSS_ENDIAN,
  protocolFeatures.STATUS,
  protocolFeatures.DEVICE_STATE,
);

/** What a legacy driver does not know of. */
const NOT_LEGACY: bigint = mask(ringFeatures.VERSION_1, ringFeatures.RING_PACKED);

/** How a front-end presents itself. */
export interface FrontEndOptions {
  /** Features of the device type to accept when they are offered. None by default. */
  readonly deviceFeatures?: bigint;
  /** Further protocol features to accept when they are offered, by whoever sends and serves their messages. */
  readonly protocolFeatures?: bigint;
  /**
   * Byte order of the driver. `"big"` is that of a legacy driver on a big-endian machine: it has split rings, without
   * VERSION_1, and needs CROSS_ENDIAN. Little by default.
   */
  readonly endianness?: Endianness;
  /** Features of the ring not to accept. */
  readonly withoutFeatures?: bigint;
  /** Protocol features not to accept. */
  readonly withoutProtocolFeatures?: bigint;
  /**
   * Serves the messages of the back-end channel. A message without a handler is answered as failed, but for
   * CONFIG_CHANGE_MSG (`FrontEnd.onConfigChange`), VRING_CALL and VRING_ERR (the rings themselves).
   */
  readonly channel?: Handlers<typeof backendMessages>;
  /** Called with every message that crosses the connection. */
  readonly tap?: Tap;
  /** Connects again when the connection has ended, and goes on where that was. Not by default. */
  readonly reconnect?: ReconnectOptions;
  /** Waiting; the process's reactor by default. */
  readonly reactor?: Reactor;
}

/** How a ring is set up that this process drives. */
export interface QueueOptions {
  /** Entries, a power of two unless RING_PACKED was negotiated; 128 by default. */
  readonly size?: number;
  /** Most descriptors of a request, when each is to have a table of its own (INDIRECT_DESC). */
  readonly tableSize?: number;
  /**
   * Whether requests may be carried out twice, see `DriverQueueOptions.resubmit`: so it is with those of a disk, not
   * with those of a file system or a stream. No by default.
   */
  readonly resubmit?: boolean;
}

/** What a front-end wants of its first back-end. */
export function wishesOf(options: FrontEndOptions): Wishes {
  const { deviceFeatures = 0n, withoutFeatures = 0n, withoutProtocolFeatures = 0n } = options;
  const known = KNOWN_PROTOCOL_FEATURES | (options.protocolFeatures ?? 0n);
  const legacy = options.endianness === "big";
  return {
    features: (KNOWN_RING_FEATURES | deviceFeatures) & ~withoutFeatures & (legacy ? ~NOT_LEGACY : ~0n),
    needed: legacy ? ["CROSS_ENDIAN"] : [],
    protocolFeatures: known & ~withoutProtocolFeatures,
    all: false,
  };
}
