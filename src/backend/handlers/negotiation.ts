/**
 * Features, status, reset.
 *
 * @module
 */

import { close, fileStatus } from "../../../ffi/fd.ts";
import { FieldError } from "../../protocol/error.ts";
import { featureNames, mask, protocolFeatures, ringFeatures } from "../../protocol/features.ts";
import type { frontendMessages } from "../../protocol/messages.ts";
import type { Handlers } from "../../transport/responder.ts";
import { after, all, type Awaitable } from "../awaitable.ts";
import type { SessionState } from "../session_state.ts";

function checkOffered(features: bigint, offered: bigint, names: Readonly<Record<string, number>>): void {
  const surplus = features & ~offered;
  if (surplus !== 0n) {
    throw new FieldError("features", "among those offered", featureNames(surplus, names).join(", "));
  }
}

/** The handlers. */
export function negotiationHandlers(state: SessionState): Handlers<typeof frontendMessages> {
  return {
    GET_FEATURES: () => state.offered,
    SET_FEATURES: (features) => setFeatures(state, features),
    SET_OWNER: () => {},
    RESET_OWNER: () => all(state.vrings.map((vring) => vring.setEnabled(false))),
    GET_PROTOCOL_FEATURES: () => state.offeredProtocol,
    SET_PROTOCOL_FEATURES: (features) => {
      checkOffered(features, state.offeredProtocol, protocolFeatures);
      return state.everywhere((host) => host.setProtocol(features));
    },
    GET_QUEUE_NUM: () => BigInt(state.vrings.length),
    SET_BACKEND_REQ_FD: (_, fds) => {
      const fd = fds.take() as number;
      const { kind } = fileStatus(fd);
      if (kind !== "socket") {
        close(fd);
        throw new FieldError("descriptor", "a socket", `a ${kind}`);
      }
      state.channel.open(fd);
      state.flushConfigChange();
    },
    SET_STATUS: (status) => {
      if (status > 0xffn) throw new FieldError("status", "8 bits", status);
      state.status = status;
    },
    GET_STATUS: () => state.status,
    RESET_DEVICE: () => resetDevice(state),
  };
}

function setFeatures(state: SessionState, features: bigint): Awaitable<void> {
  checkOffered(features, state.offered, ringFeatures);
  const logging = mask(ringFeatures.LOG_ALL);
  // Logging is switched on and off while rings run; nothing else is.
  if ((features | logging) !== (state.host.features | logging)) {
    const running = state.vrings.find((vring) => vring.started);
    if (running !== undefined) {
      throw new FieldError("features", `left alone while ring ${running.index} runs`, features);
    }
  }
  return state.everywhere((host) => host.setFeatures(features));
}

function resetDevice(state: SessionState): Awaitable<void> {
  const stopped = all(state.vrings.map((vring) => vring.stop()));
  return after(stopped, () => {
    state.status = 0n;
    state.windows.forget();
    return after(state.everywhere((host) => host.reset()), () => state.vringStopped());
  });
}
