/**
 * Answering requests by the message table.
 *
 * @module
 */

import { EpollEvent } from "../../ffi/epoll.ts";
import { DescriptorBag } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import type { Codec } from "../protocol/codec.ts";
import { FieldError, ProtocolError } from "../protocol/error.ts";
import { HeaderFlag } from "../protocol/header.ts";
import type { MessageRow, MessageTable, PayloadOf, ReplyOf } from "../protocol/messages.ts";
import { codecOf, payloads, type PayloadTypes } from "../protocol/payloads.ts";
import { Connection, type Message } from "./connection.ts";

/** No event but that the peer has left. */
const NOTHING = 0;
/** Requests that are read before others get their turn. */
const TURN = 64;

/** An answer with descriptors, or one whose payload is left out because the request failed. */
export class Reply<T> {
  /** The value, or `undefined` to answer without a payload. */
  readonly value: T | undefined;
  /** Copies go to the peer. */
  readonly fds: DescriptorBag;
  /** Whether the descriptors are closed once they are sent. */
  readonly closeFds: boolean;

  /** An answer; `undefined` as value leaves the payload out. */
  constructor(value: T | undefined, fds: readonly number[] = [], closeFds = false) {
    this.value = value;
    this.fds = new DescriptorBag(fds);
    this.closeFds = closeFds;
  }
}

/** What handles a message: the answer, or nothing where the answer is an acknowledgement. */
export type Handler<R extends MessageRow> = (
  payload: PayloadOf<R>,
  fds: DescriptorBag,
) => AnswerOf<R> | Promise<AnswerOf<R>>;

/** The value of the answer, or a {@link Reply}; that can also hold the answer during postcopy. */
export type AnswerOf<R extends MessageRow> =
  | ReplyOf<R>
  | Reply<ReplyOf<R>>
  | (R["postcopyReply"] extends keyof PayloadTypes ? Reply<PayloadTypes[R["postcopyReply"]]> : never);

/** A handler for each message that is understood. */
export type Handlers<T extends MessageTable> = { readonly [K in keyof T]?: Handler<T[K]> };

/** What the responder asks of its owner. */
export interface ResponderOptions {
  /** Whether REPLY_ACK was negotiated. */
  replyAck(): boolean;
  /** Why a message may not be sent now, such as a feature that was not negotiated; `undefined` when it may. */
  refuse(row: MessageRow): string | undefined;
  /** A request failed; the session goes on, the peer was told (or it did not ask, and {@link forgives}). */
  onFailure(error: unknown): void;
  /** Requests that are read in a second, and at once after a pause; without end by default. */
  readonly rate?: number;
  /** The peer has left while nothing was read: what waits for it cannot succeed any more. */
  onHangUp?(): void;
  /** Whether the connection outlives a request that has failed without a way to tell the peer. Not by default. */
  readonly forgives?: boolean;
  /** The connection is over, with the reason unless the peer just left. Called once. */
  onEnd(error: unknown): void;
}

/**
 * Serves one direction of a connection: reads requests, calls handlers, answers in order.
 *
 * A request that fails is answered as failed when the sender asked for an acknowledgement; otherwise there is no way to
 * tell it, and the connection ends. While a handler's promise is pending no further message is read.
 */
export class Responder<T extends MessageTable> {
  /** The connection, owned. */
  readonly connection: Connection;
  readonly #table: T;
  readonly #handlers: Handlers<T>;
  readonly #options: ResponderOptions;
  readonly #reactor: Reactor;
  #ended = false;
  #reading = true;
  /** Whether it is known that the peer has left. What it has said before is still handled, in its turn. */
  #hungUp = false;
  #throttle: ReturnType<typeof setTimeout> | undefined;
  /** Requests that may be read now, as of a time, ms. */
  #allowance: number;
  #asOf = performance.now();
  /** Whether a handler's promise is pending. */
  #busy = false;
  /** Called when none is, while nothing is read. */
  #holding: (() => void)[] | undefined;

  /** Starts reading. */
  constructor(
    connection: Connection,
    table: T,
    handlers: Handlers<T>,
    reactor: Reactor,
    options: ResponderOptions,
  ) {
    this.connection = connection;
    this.#table = table;
    this.#handlers = handlers;
    this.#reactor = reactor;
    this.#options = options;
    this.#allowance = options.rate ?? Infinity;
    reactor.watch(connection.fd, () => this.#reading ? this.#pump() : this.#hangUp());
  }

  /** Reads nothing more until {@link resume}. Resolves when what was read is done: at once, or when its handler is. */
  hold(): Promise<void> {
    this.#holding ??= [];
    this.#readOn();
    if (this.#ended || !this.#busy) return Promise.resolve();
    return new Promise((resolve) => this.#holding?.push(resolve));
  }

  /** Ends {@link hold}. */
  resume(): void {
    if (this.#holding === undefined) return;
    for (const held of this.#holding) held();
    this.#holding = undefined;
    this.#readOn();
  }

  /** Reads, or does not, as it has to be now. */
  #readOn(): void {
    const reads = !this.#busy && this.#holding === undefined && this.#throttle === undefined;
    // Once it has ended, the number of its descriptor may belong to another connection.
    if (this.#ended || reads === this.#reading) return;
    this.#reading = reads;
    if (this.#hungUp) {
      if (reads) this.#reactor.resume(this.connection.fd);
      else this.#reactor.pause(this.connection.fd);
    } else {
      this.#reactor.change(this.connection.fd, reads ? EpollEvent.IN : NOTHING);
    }
  }

  #hangUp(): void {
    this.#hungUp = true;
    this.#reactor.pause(this.connection.fd);
    this.#options.onHangUp?.();
  }

  /** Whether the next request may be read now. If not, it is in a while. */
  #allowed(): boolean {
    const { rate } = this.#options;
    if (rate === undefined || this.#allowance >= 1) return true;
    const now = performance.now();
    this.#allowance = Math.min(rate, this.#allowance + (now - this.#asOf) * rate / 1000);
    this.#asOf = now;
    if (this.#allowance >= 1) return true;
    this.#throttle = setTimeout(() => {
      this.#throttle = undefined;
      this.#readOn();
    }, Math.ceil((1 - this.#allowance) * 1000 / rate));
    this.#readOn();
    return false;
  }

  /**
   * Handles a request that did not come by the connection. It is not answered.
   *
   * @param fds closed, but for what the handler takes
   * @throws {ProtocolError} when it is refused, or the handler fails
   */
  async perform(name: keyof T & string, payload: Uint8Array, fds: DescriptorBag): Promise<void> {
    const row: MessageRow = this.#table[name];
    try {
      await this.#call({ name, header: { request: row.id, flags: 0, size: payload.length }, payload, fds });
    } catch (error) {
      throw error instanceof ProtocolError ? error : named(name, error);
    } finally {
      fds.close();
    }
  }

  /** Lets go of a connection that another process goes on with: to the peer nothing happens. */
  release(): void {
    this.#reactor.unwatch(this.connection.fd);
    this.connection.release();
    this.end();
  }

  /** Ends the connection. */
  end(error?: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#throttle);
    this.#reactor.unwatch(this.connection.fd);
    this.connection.close();
    this.resume();
    this.#options.onEnd(error);
  }

  #pump(): void {
    try {
      // Others get their turn before there can be more.
      for (let n = 0; n < TURN && this.#reading && !this.#ended && this.#allowed(); n++) {
        const message = this.connection.receive();
        if (message === null) return;
        if (message === "end") return this.end();
        this.#allowance--;
        const pending = this.#handle(message);
        if (pending !== undefined) {
          this.#busy = true;
          this.#readOn();
          pending.then(() => this.#done(), (error) => this.end(error));
          return;
        }
      }
    } catch (error) {
      this.end(error);
    }
  }

  #done(): void {
    this.#busy = false;
    if (this.#holding !== undefined) { for (const held of this.#holding.splice(0)) held(); }
    this.#readOn();
  }

  /** Checks a message and has it handled. */
  #call(message: Message): unknown {
    const payload = this.#check(message, this.#table[message.name]);
    const handler = this.#handlers[message.name as keyof T];
    if (handler === undefined) throw new ProtocolError(message.name, "nobody here serves it");
    return handler(payload as never, message.fds);
  }

  /** Handles a message at once, or returns a promise of having done so. */
  #handle(message: Message): Promise<void> | undefined {
    const row = this.#table[message.name];
    let result: unknown;
    try {
      result = this.#call(message);
    } catch (error) {
      message.fds.close();
      this.#fail(message, row, error);
      return undefined;
    }
    if (result instanceof Promise) {
      return result.then(
        (value) => this.#answer(message, row, value),
        (error) => this.#fail(message, row, error),
      ).finally(() => message.fds.close());
    }
    message.fds.close();
    this.#answer(message, row, result);
    return undefined;
  }

  /** What of a message can be checked by its row alone. */
  #check(message: Message, row: MessageRow | undefined): unknown {
    const { name, header, payload, fds } = message;
    if (Connection.isReply(header)) {
      throw new ProtocolError(name, "a reply came where a request was expected");
    }
    if (row === undefined) throw new ProtocolError(name, `no such message (${header.request})`);
    const refusal = this.#options.refuse(row);
    if (refusal !== undefined) throw new ProtocolError(name, refusal);
    const [fewest, most] = row.fds ?? [0, 0];
    if (fds.length < fewest || fds.length > most) {
      const expected = fewest === most ? `${fewest}` : `${fewest} to ${most}`;
      throw new ProtocolError(name, `descriptors: expected ${expected}, got ${fds.length}`);
    }
    return decode(name, codecOf(row.payload), payload);
  }

  #answer(message: Message, row: MessageRow, result: unknown): void {
    const reply = result instanceof Reply ? result : new Reply(result);
    try {
      // While a postcopy migration arrives, some requests have an answer of their own.
      const postcopy = result instanceof Reply && reply.value !== undefined ? row.postcopyReply : undefined;
      const kind = postcopy ?? row.reply;
      if (kind === "ack" || kind === "always ack") {
        this.#acknowledge(message, row, 0n, reply.fds);
      } else {
        const payload = result instanceof Reply && reply.value === undefined
          ? new Uint8Array(0)
          : codecOf(kind).encode(reply.value);
        this.connection.send(row.id, HeaderFlag.REPLY, payload, reply.fds);
      }
    } finally {
      if (reply.closeFds) reply.fds.close();
    }
  }

  #fail(message: Message, row: MessageRow | undefined, cause: unknown): void {
    const error = cause instanceof ProtocolError ? cause : named(message.name, cause);
    const asked = (message.header.flags & HeaderFlag.NEED_REPLY) !== 0 && this.#options.replyAck();
    const acknowledged = row === undefined || row.reply === "ack";
    if (Connection.isReply(message.header)) throw error;
    const told = row?.reply === "always ack" || (acknowledged && asked);
    if (!told && this.#options.forgives !== true) throw error;
    this.#options.onFailure(error);
    if (told) this.#sendFailure(message);
  }

  #sendFailure(message: Message): void {
    this.connection.send(
      message.header.request,
      HeaderFlag.REPLY,
      payloads.u64.encode(1n),
      new DescriptorBag(),
    );
  }

  #acknowledge(message: Message, row: MessageRow, value: bigint, fds: DescriptorBag): void {
    const asked = (message.header.flags & HeaderFlag.NEED_REPLY) !== 0 && this.#options.replyAck();
    if (!asked && row.reply !== "always ack") return;
    this.connection.send(row.id, HeaderFlag.REPLY, payloads.u64.encode(value), fds);
  }
}

/** Whatever went wrong, with the name of the message that it went wrong with. */
function named(name: string, cause: unknown): ProtocolError {
  const error = new ProtocolError(name, cause instanceof Error ? cause.message : String(cause));
  error.cause = cause;
  return error;
}

/**
 * A payload by its codec, with the message's name in the error.
 *
 * @throws {ProtocolError}
 */
export function decode<T>(name: string, codec: Codec<T>, payload: Uint8Array): T {
  if (payload.length < codec.minimum || payload.length > codec.maximum) {
    const expected = codec.minimum === codec.maximum
      ? `${codec.minimum}`
      : `${codec.minimum} to ${codec.maximum}`;
    throw new ProtocolError(name, `payload: expected ${expected} bytes, got ${payload.length}`);
  }
  try {
    return codec.decode(payload);
  } catch (error) {
    if (error instanceof FieldError) throw new ProtocolError(name, error.message);
    throw error;
  }
}
