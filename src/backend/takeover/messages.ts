/**
 * What two back-ends say to each other when one takes over from the other, on a Unix socket beside that of the device.
 *
 * The newer one connects and sends HELLO. The older one lets its rings come to rest and sends SERVER, then for each
 * front-end SESSION, INPUT where half a message has come, a SETUP for each message that brings a new session to the same
 * state, CONFIG and STATE where the device has them; and END. The newer one builds all that and sends TAKEN: from there on
 * the rings are its own, and the older one leaves. Whoever cannot go on sends REFUSED, or just leaves; then the older one
 * serves on as before.
 *
 * Messages are framed as those of vhost-user are. Their structures are little-endian.
 *
 * @module
 */

import type { MessageRow } from "../../protocol/messages.ts";
import { Struct, u32, u64 } from "../../protocol/struct.ts";

/** Version of all that is here. Another one is refused. */
export const VERSION = 1;

/** What HELLO starts with: "VUTO". */
export const MAGIC = 0x4f545556;

/** How long the rings may stand still before the older back-end goes on, ms. */
export const PATIENCE = 5000;

/** Where a back-end that serves `socketPath` can be asked. */
export function controlPath(socketPath: string): string {
  return `${socketPath}.takeover`;
}

const row = (id: number, fds?: [number, number]): MessageRow => ({ id, payload: "none", reply: "ack", fds });

/** The messages. Their payloads are those of this module. */
export const takeoverMessages = {
  /** {@link hello}. */
  HELLO: row(1),
  /** Why not, for people: UTF-8. */
  REFUSED: row(2),
  /** {@link serverPart}, with the listening socket and the one of this conversation. */
  SERVER: row(3, [2, 2]),
  /** {@link sessionPart}, with the connected socket. */
  SESSION: row(4, [1, 1]),
  /** Bytes of a message that has not come whole, with the descriptors that came along. */
  INPUT: row(5, [0, 32]),
  /** Number of a vhost-user message (u32), its payload, its descriptors. */
  SETUP: row(6, [0, 32]),
  /** The configuration space, as the driver knows it. */
  CONFIG: row(7),
  /** A piece of the device's state, framed as for live migration. */
  STATE: row(8),
  /** That was all. */
  END: row(9),
  /** The newer back-end has it. */
  TAKEN: row(10),
} as const;

/** Name of a message. */
export type TakeoverMessage = keyof typeof takeoverMessages;

/** Who asks. */
export interface Hello {
  /** {@link MAGIC}. */
  readonly magic: number;
  /** {@link VERSION}. */
  readonly version: number;
  /** Virtio device id. */
  readonly device: number;
}

/** Layout of HELLO. */
export const hello: Struct<Hello> = new Struct<Hello>({ magic: u32, version: u32, device: u32 });

/** What is handed over. */
export interface ServerPart {
  /** {@link VERSION}. */
  readonly version: number;
  /** The older back-end's process id. */
  readonly pid: number;
  /** Front-ends. */
  readonly sessions: number;
  /** Since when rings stand still, by CLOCK_MONOTONIC, ns. */
  readonly since: bigint;
}

/** Layout of SERVER. */
export const serverPart: Struct<ServerPart> = new Struct<ServerPart>({
  version: u32,
  pid: u32,
  sessions: u32,
  since: u64,
});

/** What of a session is no message. */
export interface SessionPart {
  /** Rings that the front-end was told of. */
  readonly rings: number;
  /** 1 when the front-end still has to be told that the configuration space has changed. */
  readonly configPending: number;
}

/** Layout of SESSION. */
export const sessionPart: Struct<SessionPart> = new Struct<SessionPart>({ rings: u32, configPending: u32 });

/** Layout of what stands before a message in SETUP. */
export const setupHead: Struct<{ readonly request: number }> = new Struct({ request: u32 });

/** It was not taken over; the older back-end serves on. */
export class TakeoverError extends Error {
  /** The error's class name. */
  override readonly name = "TakeoverError";
}
