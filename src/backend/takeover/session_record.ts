/**
 * A session as one process hands it to another.
 *
 * @module
 */

import type { DeviceDefinition } from "../device.ts";
import { frameState, unframeState } from "../device_state.ts";
import { FieldError } from "../../protocol/error.ts";
import type { frontendMessages } from "../../protocol/messages.ts";
import { DescriptorBag, duplicate } from "../../../ffi/fd.ts";
import type { PartialMessage } from "../../transport/connection.ts";
import type { Responder } from "../../transport/responder.ts";
import type { RingPosition } from "../ring_host.ts";
import type { SessionState } from "../session_state.ts";
import { type Entry, entry, type Journal, JOURNALED } from "./journal.ts";
import { TakeoverError } from "./messages.ts";

/** All of a session but its connection. */
export interface SessionRecord {
  /** Rings that the front-end was told of. */
  readonly rings: number;
  /** Whether the front-end still has to be told that the configuration space has changed. */
  readonly configPending: boolean;
  /** What has come of a message whose rest has not. */
  readonly begun: PartialMessage;
  /** What brings a new session to the same state. */
  readonly entries: readonly Entry[];
  /** The configuration space, where there is one. */
  readonly config: Uint8Array | undefined;
  /** The device's state, framed, where it has one. */
  readonly state: Uint8Array | undefined;
}

const KEEPS = "this device keeps state that it cannot hand over";

/** Why a device can never be handed over, not even while it has no front-end. */
export function deviceRefusal({ stateless }: DeviceDefinition): string | undefined {
  return stateless === false ? KEEPS : undefined;
}

/** Why a session cannot be handed over now; `undefined` when it can. */
export function refusal(state: SessionState): string | undefined {
  if (state.postcopy.expected) return "a postcopy migration arrives";
  if (state.transfer !== undefined) return "the device's state is being transferred";
  if (!state.windows.empty) return "the device shows files in shared memory";
  return state.device.definition.stateless === true || state.behaviour.state !== undefined
    ? undefined
    : KEEPS;
}

/** A session that rests. The descriptors stay its own. */
export async function record(
  state: SessionState,
  journal: Journal,
  positions: readonly RingPosition[],
  begun: PartialMessage,
): Promise<SessionRecord> {
  const { behaviour } = state;
  const keeper = behaviour.state;
  const entries = journal.entries(positions);
  if (state.negotiated("STATUS")) entries.push(entry("SET_STATUS", state.status));
  return {
    rings: state.vrings.length,
    configPending: state.configPending,
    begun,
    entries,
    config: behaviour.config?.read(state.endianness),
    state: keeper === undefined
      ? undefined
      : await frameState(state.device.definition.type, await keeper.save()),
  };
}

/**
 * Brings a new session, whose rings rest, to where another one was.
 *
 * @throws {Error} when that is not possible, with what does not fit
 */
export async function restore(
  state: SessionState,
  responder: Responder<typeof frontendMessages>,
  { rings, entries, config, state: framed, configPending }: SessionRecord,
): Promise<void> {
  if (state.vrings.length < rings) {
    throw new FieldError("rings", `at least ${rings}, which the front-end was told of`, state.vrings.length);
  }
  for (const { name, payload, fds } of entries) {
    if (!JOURNALED.includes(name)) throw new TakeoverError(`${name} is not a message that sets a session up`);
    await responder.perform(name, payload, new DescriptorBag(fds.map(duplicate)));
  }
  const { behaviour } = state;
  if (framed !== undefined) {
    if (behaviour.state === undefined) throw new FieldError("device", "one that takes state over", "another");
    await behaviour.state.load(await unframeState(state.device.definition.type, framed));
  }
  const space = behaviour.config?.read(state.endianness);
  const at = difference(config, space);
  if (at >= 0) {
    const follow = behaviour.config?.follow;
    if (config === undefined || space === undefined || follow === undefined) {
      throw new FieldError("configuration space", "as the driver knows it", `another at byte ${at}`);
    }
    follow.call(behaviour.config, config, state.endianness);
  }
  if (at >= 0 || configPending) state.configChanged();
}

/** The first byte in which two differ; -1 when they are the same. */
function difference(one: Uint8Array | undefined, other: Uint8Array | undefined): number {
  const a = one ?? new Uint8Array(0);
  const b = other ?? new Uint8Array(0);
  const length = Math.max(a.length, b.length);
  for (let at = 0; at < length; at++) if (a[at] !== b[at]) return at;
  return -1;
}
