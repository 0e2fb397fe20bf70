/**
 * Rings: where they are, their descriptors, start and stop.
 *
 * @module
 */

import type { DescriptorBag } from "../../../ffi/fd.ts";
import { FieldError } from "../../protocol/error.ts";
import type { frontendMessages } from "../../protocol/messages.ts";
import type { VringDescriptor, VringState } from "../../protocol/payloads.ts";
import type { Handlers } from "../../transport/responder.ts";
import { after, type Awaitable } from "../awaitable.ts";
import type { SessionState } from "../session_state.ts";
import type { VringControl } from "../vring_control.ts";

/** The handlers. */
export function ringHandlers(state: SessionState): Handlers<typeof frontendMessages> {
  /** The ring and the descriptor of a message; -1 for none. The ring owns it from here on. */
  const withDescriptor = (
    { index, noDescriptor }: VringDescriptor,
    fds: DescriptorBag,
  ): [VringControl, number] => {
    const vring = state.vring(index);
    if (fds.length !== (noDescriptor ? 0 : 1)) {
      const expected = noDescriptor ? "none with flag bit 8" : "one without flag bit 8";
      throw new FieldError("descriptors", expected, fds.length);
    }
    return [vring, fds.take() ?? -1];
  };
  return {
    SET_VRING_NUM: ({ index, num }) => state.vring(index).setSize(num),
    SET_VRING_ADDR: (address) => state.vring(address.index).setAddress(address),
    SET_VRING_BASE: ({ index, num }) => state.vring(index).setBase(num),
    SET_VRING_ENDIAN: ({ index, num }) => {
      if (num > 1) throw new FieldError("num", "0 (little-endian) or 1 (big-endian)", num);
      return state.setEndianness(index, num === 1 ? "big" : "little");
    },
    GET_VRING_BASE: ({ index }) => stopVring(state, index),
    SET_VRING_KICK: (which, fds) => {
      const [vring, fd] = withDescriptor(which, fds);
      return vring.start(fd);
    },
    SET_VRING_CALL: (which, fds) => {
      const [vring, fd] = withDescriptor(which, fds);
      return vring.setCall(fd);
    },
    SET_VRING_ERR: (which, fds) => {
      const [vring, fd] = withDescriptor(which, fds);
      return vring.setError(fd);
    },
    VRING_KICK: ({ index }) => state.vring(index).kickInBand(),
    SET_VRING_ENABLE: ({ index, num }) => {
      if (num > 1) throw new FieldError("num", "0 or 1", num);
      return state.vring(index).setEnabled(num === 1);
    },
  };
}

function stopVring(state: SessionState, index: number): Awaitable<VringState> {
  const vring = state.vrings[index];
  if (vring === undefined) {
    // There is no way to answer failure, and a front-end waits for an answer.
    state.messageFailed("GET_VRING_BASE", `: ring must be 0 to ${state.vrings.length - 1}, got ${index}`);
    return { index, num: 0 };
  }
  return after(
    vring.stop(),
    (num) => after(vring.setCall(-1), () => after(state.vringStopped(), (): VringState => ({ index, num }))),
  );
}
