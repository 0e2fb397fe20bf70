/**
 * Numbers and structures of the socket device (virtio 1.4, section 5.10; Linux `virtio_vsock.h`).
 *
 * @module
 */

import { Struct, u64 } from "../../protocol/struct.ts";

/** Feature bits of the device type. */
export const vsockFeatures = { STREAM: 0, SEQPACKET: 1, NO_IMPLIED_STREAM: 2 } as const;

/** The context id (CID) of the host. */
export const HOST_CID = 2;

/** The smallest and the largest CID that a guest can have: those below are reserved, and all ones means "any". */
export const MIN_GUEST_CID = 3;
/** See {@link MIN_GUEST_CID}. */
export const MAX_GUEST_CID = 0xffff_fffe;

/** What a packet says (field `op`). */
export const VsockOp = {
  REQUEST: 1,
  RESPONSE: 2,
  RST: 3,
  SHUTDOWN: 4,
  RW: 5,
  CREDIT_UPDATE: 6,
  CREDIT_REQUEST: 7,
} as const;

/** Types of sockets (field `type`). */
export const VsockType = { STREAM: 1, SEQPACKET: 2 } as const;

/** Flags of SHUTDOWN: which directions are over, as seen by the sender of the packet. */
export const ShutdownFlag = { RECEIVE: 1, SEND: 2, BOTH: 3 } as const;

/** Flags of RW in a seqpacket connection: the end of a message, and of a record (MSG_EOR). */
export const MessageFlag = { END_OF_MESSAGE: 1, END_OF_RECORD: 2 } as const;

/** The one event: all connections are over, and the guest's CID may be another. */
export const VSOCK_EVENT_TRANSPORT_RESET = 0;

/**
 * Bytes of a packet's header: u64 src_cid, u64 dst_cid, u32 src_port, u32 dst_port, u32 len, u16 type, u16 op, u32 flags,
 * u32 buf_alloc, u32 fwd_cnt.
 */
export const VSOCK_HEADER_SIZE = 44;

/** The configuration space. */
export interface VsockConfig {
  /** The guest's CID; the upper half is zero. */
  readonly guestCid: bigint;
}

/** Layout of the configuration space: 8 bytes. */
export const vsockConfig: Struct<VsockConfig> = new Struct<VsockConfig>({ guestCid: u64 });
