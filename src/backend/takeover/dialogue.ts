/**
 * One conversation of two back-ends: messages that wait their turn, in both directions, and not for ever.
 *
 * @module
 */

import { EpollEvent } from "../../../ffi/epoll.ts";
import { DescriptorBag } from "../../../ffi/fd.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import type { Reactor } from "../../../ffi/reactor.ts";
import { shutdownReceiving } from "../../../ffi/socket.ts";
import { Connection, type Message } from "../../transport/connection.ts";
import { TakeoverError, type TakeoverMessage, takeoverMessages } from "./messages.ts";

/** How long to wait before descriptors are sent again of which too many are on their way, ms. */
const PAUSE = 1;

/** The connection, owned. */
export class Dialogue {
  /** The socket. */
  readonly fd: number;
  readonly #connection: Connection;
  readonly #reactor: Reactor;
  #deadline: number;
  #wake: (() => void) | undefined;
  #closed = false;

  /**
   * Takes over a connected, non-blocking socket.
   *
   * @param patience how long all of it may take, ms
   */
  constructor(fd: number, reactor: Reactor, patience: number) {
    this.fd = fd;
    this.#connection = new Connection(fd, takeoverMessages);
    this.#reactor = reactor;
    this.#deadline = performance.now() + patience;
    reactor.watch(fd, () => this.#wake?.());
    reactor.pause(fd);
  }

  /** From now on it may take so long, ms. */
  set patience(value: number) {
    this.#deadline = performance.now() + value;
  }

  /** Time that is left, ms. */
  get left(): number {
    return Math.max(0, this.#deadline - performance.now());
  }

  /**
   * Sends a message, as soon as there is room.
   *
   * @param fds the peer gets copies
   * @throws {TakeoverError} when time is up, or after {@link close}
   * @throws {OsError} when the peer has gone
   */
  async send(
    name: TakeoverMessage,
    payload: Uint8Array = new Uint8Array(0),
    fds: readonly number[] = [],
  ): Promise<void> {
    while (!this.#trySend(name, payload, fds)) await this.#ready(EpollEvent.OUT);
  }

  #trySend(name: TakeoverMessage, payload: Uint8Array, fds: readonly number[]): boolean {
    if (this.#closed) throw new TakeoverError("the conversation is over");
    try {
      return this.#connection.trySend(takeoverMessages[name].id, 0, payload, new DescriptorBag(fds));
    } catch (error) {
      // The peer takes them, one message after the other.
      if (error instanceof OsError && error.errno === Errno.ETOOMANYREFS) return false;
      throw error;
    }
  }

  /**
   * The next message. The caller takes or closes its descriptors.
   *
   * @throws {TakeoverError} when time is up, or the peer says no or has gone
   * @throws {ProtocolError} when that is no message
   */
  async receive(): Promise<Message & { readonly name: TakeoverMessage }> {
    for (;;) {
      if (this.#closed) throw new TakeoverError("the conversation is over");
      const message = this.#connection.receive();
      if (message === "end") throw new TakeoverError("the other back-end has gone");
      if (message === null) await this.#ready(EpollEvent.IN);
      else return checked(message);
    }
  }

  /**
   * Decides for the older one whether the newer one has taken over: what it says from here on is not said.
   *
   * @returns whether TAKEN has come
   */
  decided(): boolean {
    if (this.#closed) return false;
    shutdownReceiving(this.fd);
    try {
      for (;;) {
        const message = this.#connection.receive();
        if (message === null || message === "end") return false;
        message.fds.close();
        if (message.name === "TAKEN") return true;
      }
    } catch {
      return false;
    }
  }

  /** Ends it. Whoever waits in it is told. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reactor.unwatch(this.fd);
    this.#connection.close();
    this.#wake?.();
  }

  #ready(events: number): Promise<void> {
    const { left } = this;
    if (left === 0) return Promise.reject(new TakeoverError("it takes too long"));
    return new Promise((resolve) => {
      const done = (): void => {
        this.#wake = undefined;
        clearTimeout(timer);
        if (!this.#closed) this.#reactor.pause(this.fd);
        resolve();
      };
      const timer = setTimeout(done, events === EpollEvent.OUT ? Math.min(left, PAUSE) : left);
      this.#wake = done;
      this.#reactor.resume(this.fd, events);
    });
  }
}

function checked(message: Message): Message & { readonly name: TakeoverMessage } {
  const { name, payload, fds } = message;
  const known = Object.hasOwn(takeoverMessages, name);
  const [fewest, most] = (known ? takeoverMessages[name as TakeoverMessage].fds : undefined) ?? [0, 0];
  if (known && name !== "REFUSED" && fds.length >= fewest && fds.length <= most) {
    return message as Message & { readonly name: TakeoverMessage };
  }
  fds.close();
  if (name === "REFUSED") throw new TakeoverError(new TextDecoder().decode(payload));
  throw new TakeoverError(`the other back-end has sent ${name} with ${fds.length} descriptors`);
}
