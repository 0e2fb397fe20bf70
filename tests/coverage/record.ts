import type { PeerProgram } from "./programs.ts";

/** Which of the two sides of a session is ours. */
export type Side = "back-end" | "front-end";

/** What was seen of a session, as one side of ours saw it: a line of `sessions.jsonl`. */
export interface SessionRecord {
  /** The test's file, from `tests/`. */
  readonly test: string;
  /** Which side is ours. */
  readonly side: Side;
  /** Who is the other. */
  readonly peer: PeerProgram;
  /** Messages from the front-end that were handled without an error, or answered without one. */
  readonly main: readonly string[];
  /** The same of the back-end channel. */
  readonly channel: readonly string[];
  /** Of both: those that an acknowledgement was asked for, and given. */
  readonly acknowledged: readonly string[];
  /** Messages of the channel that carried descriptors, either way. */
  readonly withDescriptors: readonly string[];
  /** Features that the back-end offers. Masks are hexadecimal. */
  readonly offered: string;
  /** Protocol features that the back-end offers. */
  readonly offeredProtocol: string;
  /** Protocol features that were acknowledged. */
  readonly protocol: string;
  /** Features that were acknowledged at a time when a request was completed on a ring. */
  readonly completed: string;
  /** Whether a packed ring had a request completed. */
  readonly packed: boolean;
  /** Whether a table of indirect descriptors was used for a request. */
  readonly indirect: boolean;
  /** Whether something was written that the dirty log was told of. */
  readonly logged: boolean;
}

/** Bytes written down by hand were read and written: a line of `codec.jsonl`. */
export interface CodecRecord {
  /** Who sends the message. */
  readonly from: Side;
  /** Its name. */
  readonly message: string;
  /** Which half. */
  readonly part: "request" | "answer";
}

/** The files of a folder of evidence. */
export const SESSIONS = "sessions.jsonl";
export const CODEC = "codec.jsonl";
