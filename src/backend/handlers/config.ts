/**
 * The configuration space.
 *
 * @module
 */

import { FieldError } from "../../protocol/error.ts";
import type { frontendMessages } from "../../protocol/messages.ts";
import type { Config } from "../../protocol/payloads.ts";
import { type Handlers, Reply } from "../../transport/responder.ts";
import type { SessionState } from "../session_state.ts";

/** The handlers. */
export function configHandlers(state: SessionState): Handlers<typeof frontendMessages> {
  const { config } = state.behaviour;
  return {
    GET_CONFIG: ({ offset, flags, data }) => {
      const answer = new Uint8Array(data.length);
      try {
        const space = config?.read(state.endianness) ?? new Uint8Array(0);
        answer.set(space.subarray(offset, offset + data.length));
      } catch (error) {
        state.messageFailed("GET_CONFIG", ": the device cannot tell its configuration space", error);
        return new Reply<Config>(undefined);
      }
      return { offset, flags, data: answer };
    },
    SET_CONFIG: ({ offset, flags, data }) => {
      if (flags > 1) throw new FieldError("flags", "0 (guest) or 1 (migration)", flags);
      if (config?.write === undefined) {
        throw new FieldError("configuration space", "left alone: it is read-only", "a write");
      }
      return state.everywhere((host) => host.writeConfig(offset, data, flags === 1));
    },
  };
}
