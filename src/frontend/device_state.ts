/**
 * A device's internal state, fetched and given (vhost-user, "Migrating backend state").
 *
 * @module
 */

import { close } from "../../ffi/fd.ts";
import { pipe, PipeEnd } from "../../ffi/pipe.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { ProtocolError } from "../protocol/error.ts";
import type { FrontEndSession } from "./session.ts";

const SAVE = 0;
const LOAD = 1;
/** The only phase that there is: while the device is stopped. */
const STOPPED = 0;
/** The largest state that is taken, bytes. */
const MAX_STATE = 256 * 2 ** 20;

/**
 * Starts a transfer.
 *
 * @param theirs the back-end's end of a pipe, closed here
 * @param ours the other end, taken over
 * @returns the end to use: the back-end may have answered with one of its own
 */
async function start(
  session: FrontEndSession,
  reactor: Reactor,
  direction: number,
  theirs: number,
  ours: number,
): Promise<PipeEnd> {
  const end = new PipeEnd(ours, reactor);
  try {
    const { value, fds } = await session.request(
      "SET_DEVICE_STATE_FD",
      { direction, phase: STOPPED },
      [theirs],
    );
    if (value.error !== 0) {
      throw new ProtocolError("SET_DEVICE_STATE_FD", `the back-end refuses, with error ${value.error}`);
    }
    if (value.noDescriptor) return end;
    const other = fds.take();
    if (other === undefined) {
      throw new ProtocolError(
        "SET_DEVICE_STATE_FD",
        "the answer says that it has a descriptor, and has none",
      );
    }
    end.close();
    return new PipeEnd(other, reactor);
  } catch (error) {
    end.close();
    throw error;
  } finally {
    close(theirs);
  }
}

async function check(session: FrontEndSession, what: string): Promise<void> {
  const { value } = await session.request("CHECK_DEVICE_STATE", undefined);
  if (value === 0n) return;
  throw new ProtocolError("CHECK_DEVICE_STATE", `the back-end has not ${what} its state, error ${value}`);
}

/** Fetches a device's state. */
export async function saveState(session: FrontEndSession, reactor: Reactor): Promise<Uint8Array> {
  const [read, write] = pipe();
  const end = await start(session, reactor, SAVE, write, read);
  try {
    const state = await end.readToEnd(MAX_STATE);
    if (state.length > MAX_STATE) {
      throw new ProtocolError("SET_DEVICE_STATE_FD", `a state has at most ${MAX_STATE} bytes, got more`);
    }
    await check(session, "saved");
    return state;
  } finally {
    end.close();
  }
}

/** Gives a device a state. */
export async function loadState(
  session: FrontEndSession,
  reactor: Reactor,
  state: Uint8Array,
): Promise<void> {
  const [read, write] = pipe();
  const end = await start(session, reactor, LOAD, read, write);
  try {
    await end.writeAll(state);
  } finally {
    // The back-end sees the end.
    end.close();
  }
  await check(session, "taken over");
}
