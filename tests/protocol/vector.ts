import type { MessageRow, MessageTable, PayloadOf } from "../../src/protocol/messages.ts";
import type { PayloadTypes } from "../../src/protocol/payloads.ts";

/** One message on the wire, header and payload, and what the payload means. */
export interface Frame<T> {
  /** See `hex`. */
  readonly wire: string;
  /** The payload; `undefined` for none. */
  readonly value: T;
}

/** What an answer means; an acknowledgement is a number. */
type AnswerOf<R extends MessageRow> = R["reply"] extends keyof PayloadTypes ? PayloadTypes[R["reply"]]
  : bigint;

/** A request and its answer. */
export interface Exchange<R extends MessageRow> {
  readonly request: Frame<PayloadOf<R>>;
  readonly reply: Frame<AnswerOf<R>>;
}

/** An exchange for every message of a table; leaving one out does not compile. */
export type Exchanges<T extends MessageTable> = { readonly [K in keyof T]: Exchange<T[K]> };
