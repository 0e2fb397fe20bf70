/**
 * Live migration: the device's internal state.
 *
 * @module
 */

import { FieldError } from "../../protocol/error.ts";
import type { frontendMessages } from "../../protocol/messages.ts";
import type { DeviceStateReply } from "../../protocol/payloads.ts";
import type { Handlers } from "../../transport/responder.ts";
import { StateTransfer } from "../device_state.ts";
import type { SessionState } from "../session_state.ts";

/** The handlers. */
export function migrationHandlers(state: SessionState): Handlers<typeof frontendMessages> {
  return {
    SET_DEVICE_STATE_FD: ({ direction }, fds): DeviceStateReply => {
      const keeper = state.behaviour.state;
      const running = state.vrings.find((vring) => vring.started);
      if (keeper === undefined || running !== undefined) {
        const why = keeper === undefined ? "this device has none" : `ring ${running?.index} runs`;
        state.log("warning", `SET_DEVICE_STATE_FD: the state cannot be transferred: ${why}`);
        return { error: 1, noDescriptor: true };
      }
      state.transfer?.cancel();
      state.transfer = new StateTransfer(
        direction === 0 ? "save" : "load",
        fds.take() as number,
        state.device.definition.type,
        keeper,
        state.reactor,
      );
      return { error: 0, noDescriptor: true };
    },
    CHECK_DEVICE_STATE: async () => {
      const { transfer } = state;
      state.transfer = undefined;
      try {
        if (transfer === undefined) throw new FieldError("state", "after SET_DEVICE_STATE_FD", "none before");
        await transfer.outcome;
        return 0n;
      } catch (error) {
        state.log("error", "CHECK_DEVICE_STATE: the device's state was not transferred", error);
        return 1n;
      }
    },
  };
}
