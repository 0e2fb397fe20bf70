/**
 * Live migration and recovery: the dirty log, requests in flight, the device's internal state.
 *
 * @module
 */

import { FieldError } from "../../protocol/error.ts";
import type { frontendMessages } from "../../protocol/messages.ts";
import type { DeviceStateReply } from "../../protocol/payloads.ts";
import { type Handlers, Reply } from "../../transport/responder.ts";
import { after } from "../awaitable.ts";
import { StateTransfer } from "../device_state.ts";
import { newInflightBuffer } from "../inflight_buffer.ts";
import type { SessionState } from "../session_state.ts";

/** The handlers. */
export function migrationHandlers(state: SessionState): Handlers<typeof frontendMessages> {
  return {
    SET_LOG_BASE: (log, fds) => {
      const [fd] = fds.list();
      // What the answer holds is not said; this is what every front-end takes (some demand it).
      return after(state.everywhere((host) => host.openLog(fd, log.offset, log.size)), () => log);
    },
    SET_LOG_FD: (_, fds) => {
      const [fd] = fds.list();
      return state.everywhere((host) => host.setLogEvent(fd));
    },
    GET_INFLIGHT_FD: (request) => {
      try {
        const { reply, fd } = newInflightBuffer(
          request,
          state.accepted("RING_PACKED"),
          state.vrings.length,
        );
        return new Reply(reply, [fd], true);
      } catch (error) {
        state.messageFailed("GET_INFLIGHT_FD", ": there is no such buffer", error);
        return { ...request, mmapSize: 0n, mmapOffset: 0n };
      }
    },
    SET_INFLIGHT_FD: (inflight, fds) => {
      const running = state.vrings.find((vring) => vring.started);
      if (running !== undefined) {
        throw new FieldError("buffer", `left alone while ring ${running.index} runs`, "a new one");
      }
      const [fd] = fds.list();
      return state.everywhere((host) => host.openInflight(inflight, fd));
    },
    SET_DEVICE_STATE_FD: ({ direction }, fds): DeviceStateReply => {
      const refused = (why: string, error?: unknown): DeviceStateReply => {
        state.messageFailed("SET_DEVICE_STATE_FD", `: the state cannot be transferred: ${why}`, error);
        return { error: 1, noDescriptor: true };
      };
      const keeper = state.behaviour.state;
      if (keeper === undefined) return refused("this device has none");
      const running = state.vrings.find((vring) => vring.started);
      if (running !== undefined) return refused(`ring ${running.index} runs`);
      state.transfer?.cancel();
      state.transfer = undefined;
      try {
        state.transfer = new StateTransfer(
          direction === 0 ? "save" : "load",
          fds.take() as number,
          state.device.definition.type,
          keeper,
          state.reactor,
          state.limits.state,
        );
      } catch (error) {
        return refused("the descriptor is of no use", error);
      }
      return { error: 0, noDescriptor: true };
    },
    CHECK_DEVICE_STATE: async () => {
      const { transfer } = state;
      try {
        if (transfer === undefined) throw new FieldError("state", "after SET_DEVICE_STATE_FD", "none before");
        await transfer.outcome;
        return 0n;
      } catch (error) {
        state.messageFailed("CHECK_DEVICE_STATE", ": the device's state was not transferred", error, "error");
        return 1n;
      } finally {
        state.transfer = undefined;
      }
    },
  };
}
