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
    RESET_OWNER: () => {
      for (const vring of state.vrings) vring.setEnabled(false);
    },
    GET_PROTOCOL_FEATURES: () => state.offeredProtocol,
    SET_PROTOCOL_FEATURES: (features) => {
      checkOffered(features, state.offeredProtocol, protocolFeatures);
      state.protocol = features;
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

function setFeatures(state: SessionState, features: bigint): void {
  checkOffered(features, state.offered, ringFeatures);
  const logging = mask(ringFeatures.LOG_ALL);
  // Logging is switched on and off while rings run; nothing else is.
  if ((features | logging) !== (state.features | logging)) {
    const running = state.vrings.find((vring) => vring.started);
    if (running !== undefined) {
      throw new FieldError("features", `left alone while ring ${running.index} runs`, features);
    }
  }
  const logged = state.accepted("LOG_ALL");
  state.features = features;
  if (state.accepted("LOG_ALL") !== logged) { for (const vring of state.vrings) vring.setLog(); }
  state.behaviour.negotiated?.(features);
  // Without PROTOCOL_FEATURES there is no SET_VRING_ENABLE, and rings start enabled. QEMU's cryptodev-vhost-user, the only
  // front-end with crypto sessions, never sends it either.
  if (!state.accepted("PROTOCOL_FEATURES") || state.negotiated("CRYPTO_SESSION")) {
    for (const vring of state.vrings) vring.setEnabled(true);
  }
}

function resetDevice(state: SessionState): void | Promise<void> {
  const finish = (): void => {
    for (const vring of state.vrings) vring.reset();
    state.vringStopped();
    state.features = 0n;
    state.status = 0n;
    state.resetDevice();
  };
  const stops = state.vrings.map((vring) => vring.stop());
  if (stops.every((stop) => typeof stop === "number")) return finish();
  return Promise.all(stops).then(finish);
}
