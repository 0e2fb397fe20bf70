/**
 * The message table: every message of both directions, one row each. Dispatch, client methods, traces and
 * documentation read it; a message exists in one place only.
 *
 * A row has
 * - `id`: its number; each direction counts for itself
 * - `payload`: the kind of its payload, of {@link PayloadTypes}
 * - `reply`: the kind of its answer, always sent; or `"ack"`, a u64 (0 success) sent only when need_reply is set and
 *   REPLY_ACK was negotiated; or `"always ack"`, the same u64 sent in any case
 * - `postcopyReply`: the kind of its answer after POSTCOPY_LISTEN, always sent then
 * - `anyReply`: back-ends do not agree on the payload of the answer, so front-ends take any
 * - `fds`: how many descriptors come along, at least and at most (none when absent)
 * - `replyFds`: the same for the answer
 * - `requires`: the protocol feature without which it may not be sent
 * - `requiresRing`: likewise, the feature of GET/SET_FEATURES
 * - `aliases`: names in older documents
 *
 * @module
 */

import type { ProtocolFeature, RingFeature } from "./features.ts";
import type { PayloadTypes } from "./payloads.ts";

/** A row of the table. */
export interface MessageRow {
  /** Number. */
  readonly id: number;
  /** Kind of payload. */
  readonly payload: keyof PayloadTypes;
  /** Kind of answer. */
  readonly reply: keyof PayloadTypes | "ack" | "always ack";
  /** Kind of answer while a postcopy migration arrives: always sent, with the back-end's own addresses. */
  readonly postcopyReply?: keyof PayloadTypes;
  /** Whether an answer with any payload is one: libvhost-user sends 8 bytes, DPDK none. */
  readonly anyReply?: true;
  /** Descriptors with it: fewest and most. */
  readonly fds?: readonly [number, number];
  /** Descriptors with the answer: fewest and most. */
  readonly replyFds?: readonly [number, number];
  /** Protocol feature without which it may not be sent. */
  readonly requires?: ProtocolFeature;
  /** Feature of GET/SET_FEATURES without which it may not be sent. */
  readonly requiresRing?: RingFeature;
  /** Older names. */
  readonly aliases?: readonly string[];
}

/** Front-end to back-end (vhost-user, "Front-end message types"). */
export const frontendMessages = {
  GET_FEATURES: { id: 1, payload: "none", reply: "u64" },
  SET_FEATURES: { id: 2, payload: "u64", reply: "ack" },
  SET_OWNER: { id: 3, payload: "none", reply: "ack" },
  RESET_OWNER: { id: 4, payload: "none", reply: "ack" },
  SET_MEM_TABLE: {
    id: 5,
    payload: "memoryRegions",
    reply: "ack",
    fds: [0, 32],
    postcopyReply: "memoryRegions",
  },
  SET_LOG_BASE: {
    id: 6,
    payload: "log",
    reply: "log",
    anyReply: true,
    fds: [1, 1],
    requires: "LOG_SHMFD",
  },
  SET_LOG_FD: { id: 7, payload: "none", reply: "ack", fds: [1, 1] },
  SET_VRING_NUM: { id: 8, payload: "vringState", reply: "ack" },
  SET_VRING_ADDR: { id: 9, payload: "vringAddress", reply: "ack" },
  SET_VRING_BASE: { id: 10, payload: "vringState", reply: "ack" },
  GET_VRING_BASE: { id: 11, payload: "vringState", reply: "vringState" },
  SET_VRING_KICK: { id: 12, payload: "vringDescriptor", reply: "ack", fds: [0, 1] },
  SET_VRING_CALL: { id: 13, payload: "vringDescriptor", reply: "ack", fds: [0, 1] },
  SET_VRING_ERR: { id: 14, payload: "vringDescriptor", reply: "ack", fds: [0, 1] },
  GET_PROTOCOL_FEATURES: { id: 15, payload: "none", reply: "u64", requiresRing: "PROTOCOL_FEATURES" },
  SET_PROTOCOL_FEATURES: { id: 16, payload: "u64", reply: "ack", requiresRing: "PROTOCOL_FEATURES" },
  GET_QUEUE_NUM: { id: 17, payload: "none", reply: "u64", requires: "MQ" },
  SET_VRING_ENABLE: { id: 18, payload: "vringState", reply: "ack", requiresRing: "PROTOCOL_FEATURES" },
  SEND_RARP: { id: 19, payload: "u64", reply: "ack", requires: "RARP" },
  NET_SET_MTU: { id: 20, payload: "u64", reply: "ack", requires: "MTU" },
  SET_BACKEND_REQ_FD: {
    id: 21,
    payload: "none",
    reply: "ack",
    fds: [1, 1],
    requires: "BACKEND_REQ",
    aliases: ["SET_SLAVE_REQ_FD"],
  },
  IOTLB_MSG: { id: 22, payload: "iotlb", reply: "always ack", requiresRing: "ACCESS_PLATFORM" },
  SET_VRING_ENDIAN: { id: 23, payload: "vringState", reply: "ack", requires: "CROSS_ENDIAN" },
  GET_CONFIG: { id: 24, payload: "config", reply: "config", requires: "CONFIG" },
  SET_CONFIG: { id: 25, payload: "config", reply: "ack", requires: "CONFIG" },
  CREATE_CRYPTO_SESSION: {
    id: 26,
    payload: "cryptoSession",
    reply: "cryptoSession",
    requires: "CRYPTO_SESSION",
  },
  CLOSE_CRYPTO_SESSION: { id: 27, payload: "u64", reply: "ack", requires: "CRYPTO_SESSION" },
  POSTCOPY_ADVISE: { id: 28, payload: "none", reply: "none", replyFds: [1, 1], requires: "PAGEFAULT" },
  POSTCOPY_LISTEN: { id: 29, payload: "none", reply: "always ack", requires: "PAGEFAULT" },
  POSTCOPY_END: { id: 30, payload: "none", reply: "always ack", requires: "PAGEFAULT" },
  GET_INFLIGHT_FD: {
    id: 31,
    payload: "inflight",
    reply: "inflight",
    replyFds: [0, 1],
    requires: "INFLIGHT_SHMFD",
  },
  SET_INFLIGHT_FD: { id: 32, payload: "inflight", reply: "ack", fds: [1, 1], requires: "INFLIGHT_SHMFD" },
  GPU_SET_SOCKET: { id: 33, payload: "none", reply: "ack", fds: [1, 1] },
  RESET_DEVICE: { id: 34, payload: "none", reply: "ack", requires: "RESET_DEVICE" },
  VRING_KICK: { id: 35, payload: "vringState", reply: "ack", requires: "INBAND_NOTIFICATIONS" },
  GET_MAX_MEM_SLOTS: { id: 36, payload: "none", reply: "u64", requires: "CONFIGURE_MEM_SLOTS" },
  ADD_MEM_REG: {
    id: 37,
    payload: "addedRegion",
    reply: "ack",
    fds: [0, 1],
    requires: "CONFIGURE_MEM_SLOTS",
    postcopyReply: "memoryRegion",
  },
  REM_MEM_REG: {
    id: 38,
    payload: "memoryRegion",
    reply: "ack",
    fds: [0, 1],
    requires: "CONFIGURE_MEM_SLOTS",
  },
  SET_STATUS: { id: 39, payload: "u64", reply: "ack", requires: "STATUS" },
  GET_STATUS: { id: 40, payload: "none", reply: "u64", requires: "STATUS" },
  GET_SHARED_OBJECT: {
    id: 41,
    payload: "requestedUuid",
    reply: "none",
    replyFds: [0, 1],
    requires: "SHARED_OBJECT",
  },
  SET_DEVICE_STATE_FD: {
    id: 42,
    payload: "deviceState",
    reply: "deviceStateReply",
    fds: [1, 1],
    replyFds: [0, 1],
    requires: "DEVICE_STATE",
  },
  CHECK_DEVICE_STATE: { id: 43, payload: "none", reply: "u64", requires: "DEVICE_STATE" },
  GET_SHMEM_CONFIG: { id: 44, payload: "none", reply: "shmemConfig", requires: "SHMEM" },
} as const;

/** Back-end to front-end, on the channel of SET_BACKEND_REQ_FD (vhost-user, "Back-end message types"). */
export const backendMessages = {
  IOTLB_MSG: {
    id: 1,
    payload: "iotlb",
    reply: "ack",
    requiresRing: "ACCESS_PLATFORM",
    aliases: ["SLAVE_IOTLB_MSG"],
  },
  CONFIG_CHANGE_MSG: {
    id: 2,
    payload: "none",
    reply: "ack",
    requires: "CONFIG",
    aliases: ["SLAVE_CONFIG_CHANGE_MSG"],
  },
  VRING_HOST_NOTIFIER_MSG: {
    id: 3,
    payload: "vringArea",
    reply: "ack",
    fds: [0, 1],
    requires: "HOST_NOTIFIER",
    aliases: ["SLAVE_VRING_HOST_NOTIFIER_MSG"],
  },
  VRING_CALL: {
    id: 4,
    payload: "vringState",
    reply: "ack",
    requires: "INBAND_NOTIFICATIONS",
    aliases: ["SLAVE_VRING_CALL"],
  },
  VRING_ERR: {
    id: 5,
    payload: "vringState",
    reply: "ack",
    requires: "INBAND_NOTIFICATIONS",
    aliases: ["SLAVE_VRING_ERR"],
  },
  SHARED_OBJECT_ADD: { id: 6, payload: "uuid", reply: "ack", requires: "SHARED_OBJECT" },
  SHARED_OBJECT_REMOVE: { id: 7, payload: "uuid", reply: "ack", requires: "SHARED_OBJECT" },
  SHARED_OBJECT_LOOKUP: {
    id: 8,
    payload: "uuid",
    reply: "always ack",
    replyFds: [0, 1],
    requires: "SHARED_OBJECT",
  },
  SHMEM_MAP: { id: 9, payload: "shmemMapping", reply: "ack", fds: [1, 1], requires: "SHMEM" },
  SHMEM_UNMAP: { id: 10, payload: "shmemMapping", reply: "ack", requires: "SHMEM" },
} as const;

/** Name of a message from front-end to back-end. */
export type FrontendMessage = keyof typeof frontendMessages;
/** Name of a message from back-end to front-end. */
export type BackendMessage = keyof typeof backendMessages;

/** The rows of one direction. */
export type MessageTable = Readonly<Record<string, MessageRow>>;

/** What a row's payload is in TypeScript. */
export type PayloadOf<R extends MessageRow> = PayloadTypes[R["payload"]];
/** What a row's answer is in TypeScript; nothing for an acknowledgement. */
export type ReplyOf<R extends MessageRow> = R["reply"] extends keyof PayloadTypes
  ? PayloadTypes[R["reply"]] | (R["anyReply"] extends true ? undefined : never)
  : void;
/** The descriptors that go with a message, as arguments: one that must be there, some that may, or none. */
export type DescriptorsOf<R extends MessageRow> = R["fds"] extends readonly [1, 1] ? [fds: readonly [number]]
  : R["fds"] extends readonly [number, number] ? [fds?: readonly number[]]
  : [];

const namesById = new WeakMap<MessageTable, Map<number, string>>();

/** The name of a message by its number, or `undefined` for one that the table does not have. */
export function messageName(table: MessageTable, id: number): string | undefined {
  let names = namesById.get(table);
  if (names === undefined) {
    names = new Map(Object.entries(table).map(([name, row]) => [row.id, name]));
    namesById.set(table, names);
  }
  return names.get(id);
}
