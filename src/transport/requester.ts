/**
 * Sending requests by the message table, and matching the answers.
 *
 * @module
 */

import { DescriptorBag } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { ProtocolError } from "../protocol/error.ts";
import { HeaderFlag } from "../protocol/header.ts";
import type { MessageRow, MessageTable, PayloadOf, ReplyOf } from "../protocol/messages.ts";
import { codecOf, payloads } from "../protocol/payloads.ts";
import { Connection, type Message } from "./connection.ts";
import { decode } from "./responder.ts";

interface Waiting {
  readonly name: string;
  readonly row: MessageRow;
  readonly reply: MessageRow["reply"];
  resolve(reply: { value: unknown; fds: DescriptorBag }): void;
  reject(error: unknown): void;
}

/** What came back. */
export interface Answer<T> {
  /** The payload. */
  readonly value: T;
  /** Descriptors; the caller takes or closes them. */
  readonly fds: DescriptorBag;
}

/** The asking side of a connection. Several requests may be under way; answers come in their order. */
export class Requester<T extends MessageTable> {
  /** The connection, owned. */
  readonly connection: Connection;
  /** Whether to ask for an acknowledgement where the answer is not a payload: once REPLY_ACK is negotiated. */
  replyAck = false;
  readonly #table: T;
  readonly #reactor: Reactor;
  readonly #waiting: Waiting[] = [];
  readonly #idlers: (() => void)[] = [];
  readonly #onEnd: (error: unknown) => void;
  #ended = false;

  /** Starts reading answers. `onEnd` is called once, with a reason unless the peer just left. */
  constructor(
    connection: Connection,
    table: T,
    reactor: Reactor,
    onEnd: (error: unknown) => void = () => {},
  ) {
    this.connection = connection;
    this.#table = table;
    this.#reactor = reactor;
    this.#onEnd = onEnd;
    reactor.watch(connection.fd, () => this.#pump());
  }

  /**
   * Sends a request and waits for its answer, where the table or REPLY_ACK gives one.
   *
   * @param fds the peer gets copies
   * @throws {ProtocolError} when the peer says that it failed, answers wrongly or leaves
   * @throws {FieldError} when the payload cannot be encoded
   */
  request<K extends keyof T & string>(
    name: K,
    payload: PayloadOf<T[K]>,
    fds: readonly number[] = [],
  ): Promise<Answer<ReplyOf<T[K]>>> {
    const row: MessageRow = this.#table[name];
    const asked = row.reply === "ack" && !this.replyAck ? undefined : row.reply;
    return this.exchange(name, payload, fds, asked) as Promise<Answer<ReplyOf<T[K]>>>;
  }

  /**
   * Sends a request whose answer is not the usual one, as while a postcopy migration arrives.
   *
   * @param reply the kind of the answer; `undefined` when there is none
   */
  exchange<K extends keyof T & string>(
    name: K,
    payload: PayloadOf<T[K]>,
    fds: readonly number[],
    reply: MessageRow["reply"] | undefined,
  ): Promise<Answer<unknown>> {
    if (this.#ended) return Promise.reject(new ProtocolError(name, "the connection is closed"));
    const row: MessageRow = this.#table[name];
    const flags = reply === "ack" || reply === "always ack" ? HeaderFlag.NEED_REPLY : 0;
    try {
      this.connection.send(row.id, flags, codecOf(row.payload).encode(payload), new DescriptorBag(fds));
    } catch (error) {
      return Promise.reject(error);
    }
    if (reply === undefined) return Promise.resolve({ value: undefined, fds: new DescriptorBag() });
    return new Promise((resolve, reject) => this.#waiting.push({ name, row, reply, resolve, reject }));
  }

  /** Requests that wait for their answer. */
  get unanswered(): number {
    return this.#waiting.length;
  }

  /** Resolves when no answer is due, which is now or when the last has come. */
  answered(): Promise<void> {
    if (this.#waiting.length === 0) return Promise.resolve();
    return this.#reactor.promise((resolve) => this.#idlers.push(() => resolve(undefined)));
  }

  #idle(): void {
    if (this.#waiting.length === 0) { for (const idle of this.#idlers.splice(0)) idle(); }
  }

  /** Lets go of a connection that another process goes on with: to the peer nothing happens. No answer may be due. */
  release(): void {
    this.#reactor.unwatch(this.connection.fd);
    this.connection.release();
    this.end();
  }

  /** Ends the connection; requests under way fail. */
  end(error?: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#reactor.unwatch(this.connection.fd);
    this.connection.close();
    for (const { name, reject } of this.#waiting.splice(0)) {
      reject(error ?? new ProtocolError(name, "the peer left before it answered"));
    }
    this.#idle();
    this.#onEnd(error);
  }

  #pump(): void {
    try {
      while (!this.#ended) {
        const message = this.connection.receive();
        if (message === null) return;
        if (message === "end") return this.end();
        this.#settle(message);
        this.#idle();
      }
    } catch (error) {
      this.end(error);
    }
  }

  #settle(message: Message): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) {
      message.fds.close();
      throw new ProtocolError(message.name, "a reply came that nobody asked for");
    }
    const { name, row, reply } = waiting;
    try {
      if (message.header.request !== row.id || !Connection.isReply(message.header)) {
        throw new ProtocolError(
          name,
          `expected its reply, got ${message.name} with flags ${message.header.flags}`,
        );
      }
      const [, most] = row.replyFds ?? [0, 0];
      if (message.fds.length > most) {
        throw new ProtocolError(name, `descriptors in the reply: at most ${most}, got ${message.fds.length}`);
      }
    } catch (error) {
      message.fds.close();
      waiting.reject(error);
      throw error;
    }
    try {
      if (reply === "ack" || reply === "always ack") {
        const status = decode(name, payloads.u64, message.payload);
        if (status !== 0n) throw new ProtocolError(name, `the peer answered failure (${status})`);
        waiting.resolve({ value: undefined, fds: message.fds });
      } else if (row.anyReply && message.payload.length !== codecOf(reply).minimum) {
        waiting.resolve({ value: undefined, fds: message.fds });
      } else {
        if (message.payload.length === 0 && codecOf(reply).minimum > 0) {
          throw new ProtocolError(name, "the peer answered failure (no payload)");
        }
        waiting.resolve({ value: decode(name, codecOf(reply), message.payload), fds: message.fds });
      }
    } catch (error) {
      message.fds.close();
      waiting.reject(error);
    }
  }
}
