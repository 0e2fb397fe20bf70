/**
 * What only some types of device have.
 *
 * @module
 */

import { FieldError } from "../../protocol/error.ts";
import type { frontendMessages } from "../../protocol/messages.ts";
import { type Handlers, Reply } from "../../transport/responder.ts";
import type { SessionState } from "../session_state.ts";

/** The largest id of a shared memory region, and one more. */
const SHMEM_REGIONS = 256;

/** The handlers. */
export function deviceHandlers(state: SessionState): Handlers<typeof frontendMessages> {
  const { behaviour } = state;
  return {
    SEND_RARP: (payload) => {
      // The bytes of the number as they lie in memory are the address.
      const bytes = new Uint8Array(new BigUint64Array([payload]).buffer);
      behaviour.announce?.(bytes.slice(0, 6));
    },
    NET_SET_MTU: (mtu) => {
      if (mtu < 68n || mtu > 65535n) throw new FieldError("MTU", "68 to 65535 bytes", mtu);
      behaviour.setMtu?.(Number(mtu));
    },
    CREATE_CRYPTO_SESSION: async (session) => {
      try {
        if (behaviour.crypto === undefined) {
          throw new FieldError("device", "one with crypto sessions", "none");
        }
        return { ...session, sessionId: await behaviour.crypto.create(session) };
      } catch (error) {
        state.messageFailed("CREATE_CRYPTO_SESSION", " failed", error);
        return { ...session, sessionId: -1n };
      }
    },
    CLOSE_CRYPTO_SESSION: (id) => behaviour.crypto?.close(id),
    GPU_SET_SOCKET: (_, fds) => {
      if (behaviour.setGpuSocket === undefined) {
        throw new FieldError("device", "one with a display", "another");
      }
      behaviour.setGpuSocket(fds.take() as number);
    },
    GET_SHARED_OBJECT: (uuid) => {
      if (uuid === undefined) {
        state.messageFailed("GET_SHARED_OBJECT", ": the front-end does not say which, so it gets none");
      }
      const fd = uuid === undefined ? undefined : behaviour.sharedObject?.(uuid);
      return new Reply<void>(undefined, fd === undefined ? [] : [fd]);
    },
    GET_SHMEM_CONFIG: () => {
      const sizes = Array.from(
        { length: SHMEM_REGIONS },
        (_, id) => BigInt(behaviour.sharedMemory?.get(id) ?? 0),
      );
      return { numRegions: sizes.filter((size) => size > 0n).length, sizes };
    },
  };
}
