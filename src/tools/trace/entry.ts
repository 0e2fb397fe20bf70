/**
 * What a trace consists of.
 *
 * @module
 */

import type { PeerCredentials } from "../../../ffi/socket.ts";
import type { Header } from "../../protocol/header.ts";
import type { Content } from "../describe.ts";
import type { DescriptorInfo } from "./descriptors.ts";
import type { Outcome, Side } from "./wire.ts";

/** The connection that a message crosses: the one of the session, or the one of SET_BACKEND_REQ_FD. */
export type Channel = "main" | "back-end";

/** What every entry has. */
interface Common {
  /** Number of the session, from 1. */
  readonly session: number;
  /** Milliseconds since the first session began, with fractions. */
  readonly time: number;
}

/** A session begins or ends. */
export interface SessionEntry extends Common {
  /** Which kind of entry. */
  readonly type: "session";
  /** What happens. */
  readonly event: "start" | "end";
  /** Processes at both ends, when it begins and the system tells. */
  readonly peers?: Readonly<Record<Side, PeerCredentials | undefined>>;
  /** Who left first, when it ends; `undefined` when the tracer ends it. */
  readonly left?: Side;
}

/** A message. */
export interface MessageEntry extends Common {
  /** Which kind of entry. */
  readonly type: "message";
  /** The connection. */
  readonly channel: Channel;
  /** Who sent it. */
  readonly from: Side;
  /** Its header. */
  readonly header: Header;
  /** Its name, or `undefined` for one that the table does not have. */
  readonly name: string | undefined;
  /** Whether it is an answer. */
  readonly reply: boolean;
  /** What it says. */
  readonly content: Content;
  /** Its bytes, without the header; a copy. */
  readonly payload: Uint8Array;
  /** The descriptors that came with it. */
  readonly descriptors: readonly DescriptorInfo[];
  /** Of an answer: time since the request, ms. */
  readonly latency?: number;
  /** Of an answer: whether it says that the request has failed. */
  readonly failed: boolean;
  /** What about it breaks the protocol, in words. */
  readonly violations: readonly string[];
  /** Whether it was passed on. */
  readonly outcome: Outcome;
}

/** Bytes that are no message. */
export interface RawEntry extends Common {
  /** Which kind of entry. */
  readonly type: "raw";
  /** The connection. */
  readonly channel: Channel;
  /** Who sent them. */
  readonly from: Side;
  /** The bytes; a copy. */
  readonly bytes: Uint8Array;
  /** The descriptors that came with them. */
  readonly descriptors: readonly DescriptorInfo[];
  /** Why they are none, where that shows: at their beginning. */
  readonly violations: readonly string[];
  /** Whether they were passed on. */
  readonly outcome: Outcome;
}

/** Something about a session that is not a message. */
export interface NoteEntry extends Common {
  /** Which kind of entry. */
  readonly type: "note";
  /** How bad: something to know, something that may explain a hang, or something that broke. */
  readonly level: "info" | "warning" | "error";
  /** The connection. */
  readonly channel: Channel;
  /** What. */
  readonly text: string;
}

/** One entry of a trace. */
export type Entry = SessionEntry | MessageEntry | RawEntry | NoteEntry;
