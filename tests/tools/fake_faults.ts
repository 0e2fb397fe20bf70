import { close } from "../../ffi/fd.ts";

/** What it can do wrong. */
export const faults = [
  "reply flags keep need_reply",
  "no acknowledgements",
  "acknowledges unasked",
  "answers twice",
  "unknown messages succeed",
  "unknown messages are not answered",
  "reads headers in one piece",
  "leaks surplus descriptors",
  "keeps the descriptor of REM_MEM_REG",
  "features change",
  "in-band notifications without a channel",
  "starts on the first kick only",
  "does not poll",
  "forgets requests of a disabled ring",
  "tells a wrong base",
  "ignores SET_VRING_BASE",
  "answers GET_VRING_BASE too early",
  "goes on after GET_VRING_BASE",
  "ignores mmap offsets",
  "knows one region only",
  "knows no added memory",
  "never calls",
  "used_event off by one",
  "suppresses kicks for ever",
  "returns the wrong head",
  "returns heads twice",
  "writes past its room",
  "tells more than it wrote",
  "changes the descriptor table",
  "knows no long chains",
  "knows no indirect tables",
  "minds WRITE on a table",
  "ignores the offset of GET_CONFIG",
  "forgets the status",
  "RESET_DEVICE leaves rings running",
  "speaks on the channel while stopped",
  "dies of a loop",
  "hangs in a loop",
  "gives no random bytes",
  "fails SET_OWNER",
  "answers out of order",
  "dies of a wrong header",
  "hangs after an unknown message",
  "hangs after need_reply without REPLY_ACK",
  "dies of half a message",
  "dies of an answer that nobody reads",
  "dies of a front-end that says nothing",
  "dies of a second front-end",
  "does not answer who comes at once",
  "offers no VERSION_1",
  "wants SET_FEATURES before SET_PROTOCOL_FEATURES",
  "wants SET_FEATURES before GET_CONFIG",
] as const;

/** One of {@link faults}. */
export type Fault = (typeof faults)[number];

/** Descriptors that nobody will ever close, but {@link closeLeaks}. */
export const leaks: number[] = [];

/** Closes what was leaked on purpose. */
export function closeLeaks(): void {
  for (const fd of leaks.splice(0)) close(fd);
}
