/**
 * One right message of each kind: what the cases made from the message table vary.
 *
 * @module
 */

import { close } from "../../../../ffi/fd.ts";
import { eventfd } from "../../../../ffi/eventfd.ts";
import { memoryFile } from "../../../../ffi/mapping.ts";
import type { FrontendMessage } from "../../../protocol/messages.ts";
import { IotlbType } from "../../../protocol/payloads.ts";
import { addressOf, encode, type Peer, regionOf } from "../peer.ts";
import { CheckRing } from "../ring.ts";
import type { Trial } from "../trial.ts";

/** A message without its header. */
export interface Sample {
  /** Its payload. */
  readonly bytes: Uint8Array;
  /** Its descriptors; closed when the case ends. */
  readonly fds?: readonly number[];
}

/** Makes a message that is right at this moment of a session; may say other things first to make it so. */
type Maker = (trial: Trial, peer: Peer) => Sample | Promise<Sample>;

/** A descriptor that is closed when the case ends. */
function keep(trial: Trial, fd: number): number {
  trial.after(() => close(fd));
  return fd;
}

/** A descriptor for a ring. */
function doorbell(name: "SET_VRING_KICK" | "SET_VRING_CALL" | "SET_VRING_ERR"): Maker {
  return (trial) => ({
    bytes: encode(name, { index: 0, noDescriptor: false }),
    fds: [keep(trial, eventfd())],
  });
}

/** A number for ring 0. */
function state(
  name:
    | "SET_VRING_NUM"
    | "SET_VRING_BASE"
    | "GET_VRING_BASE"
    | "SET_VRING_ENABLE"
    | "SET_VRING_ENDIAN"
    | "VRING_KICK",
  num: number,
): Maker {
  return () => ({ bytes: encode(name, { index: 0, num }) });
}

const nothing: Maker = () => ({ bytes: new Uint8Array(0) });
const inflight = { mmapSize: 0n, mmapOffset: 0n, numQueues: 1, queueSize: 64 };

/** Makers by message. */
export const samples: Readonly<Record<FrontendMessage, Maker>> = {
  GET_FEATURES: nothing,
  SET_FEATURES: (trial) => ({ bytes: encode("SET_FEATURES", trial.acceptedFeatures()) }),
  SET_OWNER: nothing,
  RESET_OWNER: nothing,
  SET_MEM_TABLE: (trial) => {
    const memory = trial.memory(1 << 20);
    return { bytes: encode("SET_MEM_TABLE", [regionOf(memory)]), fds: [memory.fd] };
  },
  SET_LOG_BASE: (trial) => ({
    bytes: encode("SET_LOG_BASE", { size: 0x10000n, offset: 0n }),
    fds: [keep(trial, memoryFile("log", 0x10000))],
  }),
  SET_LOG_FD: (trial) => ({ bytes: new Uint8Array(0), fds: [keep(trial, eventfd())] }),
  SET_VRING_NUM: state("SET_VRING_NUM", 64),
  SET_VRING_ADDR: async (trial, peer) => {
    const memory = trial.memory(1 << 20);
    const ring = new CheckRing(0, memory, 64);
    trial.after(() => ring.close());
    await peer.share(memory);
    await peer.set("SET_VRING_NUM", { index: 0, num: 64 });
    return { bytes: encode("SET_VRING_ADDR", addressOf(ring)) };
  },
  SET_VRING_BASE: state("SET_VRING_BASE", 0),
  GET_VRING_BASE: state("GET_VRING_BASE", 0),
  SET_VRING_KICK: async (trial, peer) => {
    const memory = trial.memory(1 << 20);
    await peer.share(memory);
    const ring = await peer.setUp(0, memory);
    return { bytes: encode("SET_VRING_KICK", { index: 0, noDescriptor: false }), fds: [ring.kickFd] };
  },
  SET_VRING_CALL: doorbell("SET_VRING_CALL"),
  SET_VRING_ERR: doorbell("SET_VRING_ERR"),
  GET_PROTOCOL_FEATURES: nothing,
  SET_PROTOCOL_FEATURES: (_, peer) => ({ bytes: encode("SET_PROTOCOL_FEATURES", peer.protocol) }),
  GET_QUEUE_NUM: nothing,
  SET_VRING_ENABLE: state("SET_VRING_ENABLE", 0),
  // 02:00:00:00:00:01, which nobody has.
  SEND_RARP: () => ({ bytes: encode("SEND_RARP", 0x0100_0000_0002n) }),
  NET_SET_MTU: () => ({ bytes: encode("NET_SET_MTU", 1500n) }),
  SET_BACKEND_REQ_FD: (trial) => ({ bytes: new Uint8Array(0), fds: [trial.pair()[1]] }),
  IOTLB_MSG: async (trial, peer) => {
    const memory = trial.memory(1 << 20);
    await peer.share(memory);
    return {
      bytes: encode("IOTLB_MSG", {
        iova: 0x1000n,
        size: 0x1000n,
        userAddress: memory.userAddress,
        permission: 3,
        type: IotlbType.UPDATE,
      }),
    };
  },
  SET_VRING_ENDIAN: state("SET_VRING_ENDIAN", 0),
  GET_CONFIG: () => ({ bytes: encode("GET_CONFIG", { offset: 0, flags: 0, data: new Uint8Array(8) }) }),
  // No bytes at all: nothing is written even where it is accepted.
  SET_CONFIG: () => ({ bytes: encode("SET_CONFIG", { offset: 0, flags: 0, data: new Uint8Array(0) }) }),
  CREATE_CRYPTO_SESSION: () => ({
    bytes: encode("CREATE_CRYPTO_SESSION", { opCode: 0n, session: new Uint8Array(1056), sessionId: 0n }),
  }),
  CLOSE_CRYPTO_SESSION: () => ({ bytes: encode("CLOSE_CRYPTO_SESSION", 0n) }),
  POSTCOPY_ADVISE: nothing,
  POSTCOPY_LISTEN: nothing,
  POSTCOPY_END: nothing,
  GET_INFLIGHT_FD: () => ({ bytes: encode("GET_INFLIGHT_FD", inflight) }),
  SET_INFLIGHT_FD: async (trial, peer) => {
    if (!peer.negotiated("INFLIGHT_SHMFD")) {
      return {
        bytes: encode("SET_INFLIGHT_FD", { ...inflight, mmapSize: 0x10000n }),
        fds: [keep(trial, memoryFile("inflight", 0x10000))],
      };
    }
    const { value, fds } = await peer.ask("GET_INFLIGHT_FD", inflight);
    return { bytes: encode("SET_INFLIGHT_FD", value), fds: fds.takeAll().map((fd) => keep(trial, fd)) };
  },
  GPU_SET_SOCKET: (trial) => ({ bytes: new Uint8Array(0), fds: [trial.pair()[1]] }),
  RESET_DEVICE: nothing,
  VRING_KICK: state("VRING_KICK", 0),
  GET_MAX_MEM_SLOTS: nothing,
  ADD_MEM_REG: (trial) => {
    const memory = trial.memory(1 << 20);
    return { bytes: encode("ADD_MEM_REG", regionOf(memory)), fds: [memory.fd] };
  },
  REM_MEM_REG: async (trial, peer) => {
    const memory = trial.memory(1 << 20);
    if (peer.negotiated("CONFIGURE_MEM_SLOTS")) await peer.set("ADD_MEM_REG", regionOf(memory), [memory.fd]);
    return { bytes: encode("REM_MEM_REG", regionOf(memory)) };
  },
  SET_STATUS: () => ({ bytes: encode("SET_STATUS", 1n) }),
  GET_STATUS: nothing,
  GET_SHARED_OBJECT: () => ({ bytes: encode("GET_SHARED_OBJECT", new Uint8Array(16).fill(0x5a)) }),
  SET_DEVICE_STATE_FD: (trial) => ({
    bytes: encode("SET_DEVICE_STATE_FD", { direction: 0, phase: 0 }),
    fds: [trial.pair()[1]],
  }),
  CHECK_DEVICE_STATE: nothing,
  GET_SHMEM_CONFIG: nothing,
};
