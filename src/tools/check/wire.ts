/**
 * A connection on which anything can be sent, right or wrong.
 *
 * @module
 */

import { DescriptorBag } from "../../../ffi/fd.ts";
import { Native } from "../../../ffi/native.ts";
import { OsError } from "../../../ffi/os_error.ts";
import { send } from "../../../ffi/socket.ts";
import { ProtocolError } from "../../protocol/error.ts";
import { header, VERSION } from "../../protocol/header.ts";
import { frontendMessages, messageName } from "../../protocol/messages.ts";
import { Connection, type Message, type Tap } from "../../transport/connection.ts";
import { describeMessage } from "../describe.ts";
import { fail } from "./finding.ts";
import { until } from "./wait.ts";

/** What can be said of a message beyond its number and payload. */
export interface SendOptions {
  /** The whole flags word of the header; version 1 alone by default. */
  readonly flags?: number;
  /** The size in the header; the payload's own by default. */
  readonly size?: number;
  /** Descriptors to go along; the peer gets copies. */
  readonly fds?: readonly number[];
}

/** A message as it stands on the wire. */
export function bytesOf(id: number, payload: Uint8Array, options: SendOptions = {}): Uint8Array<ArrayBuffer> {
  const { flags = VERSION, size = payload.length } = options;
  const bytes = new Uint8Array(header.size + payload.length);
  header.write(new DataView(bytes.buffer), 0, { request: id, flags, size });
  bytes.set(payload, header.size);
  return bytes;
}

/** How long a socket takes nothing before it is said to be full, ms. */
const FULL = 300;
/** More small messages than a socket has room for, unless somebody has given it a lot. */
const MANY = 50_000;

/** A connected socket to the back-end. Owns it. */
export class Wire {
  readonly #connection: Connection;
  readonly #tap: Tap | undefined;
  readonly #output = new Native(1 << 14);
  readonly #patience: number;
  /** What the back-end said to the first question, if that was asked when the connection was made. */
  greeting: Uint8Array | undefined;
  #ended = false;
  #heard = false;

  /**
   * Takes a socket over.
   *
   * @param fd connected and non-blocking
   * @param patience how long to wait for an answer, ms
   * @param tap sees what goes out whole and what comes in
   */
  constructor(fd: number, patience: number, tap?: Tap) {
    this.#connection = new Connection(fd, frontendMessages);
    this.#connection.tap = tap;
    this.#tap = tap;
    this.#patience = patience;
  }

  /** Whether the back-end was seen to close it. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Whether anything ever came from the back-end. */
  get heard(): boolean {
    return this.#heard;
  }

  /** The socket. */
  get fd(): number {
    return this.#connection.fd;
  }

  /**
   * Sends a message by the rules, as any front-end does. That the back-end has gone shows when its answer is awaited.
   *
   * @param flags of {@link HeaderFlag}, without the version
   */
  async say(id: number, payload: Uint8Array, flags = 0, fds: readonly number[] = []): Promise<void> {
    const bag = new DescriptorBag(fds);
    await until(() => {
      if (this.#ended || this.#connection.closed) return true;
      try {
        this.#connection.send(id, flags, payload, bag);
      } catch (error) {
        // So small a message goes out whole or not at all, and there is room again when the back-end has read.
        if (error instanceof ProtocolError) return undefined;
        if (!(error instanceof OsError)) throw error;
      }
      return true;
    }, this.#patience);
  }

  /** Sends a message, right or wrong. That the back-end has gone shows when its answer is awaited. */
  async send(id: number, payload: Uint8Array, options: SendOptions = {}): Promise<void> {
    const { fds = [], flags = VERSION, size = payload.length } = options;
    await this.sendBytes(bytesOf(id, payload, options), fds);
    const name = messageName(frontendMessages, id) ?? `message ${id}`;
    this.#tap?.("out", { header: { request: id, flags, size }, name, payload, fds: new DescriptorBag(fds) });
  }

  /** Sends the same bytes again and again, until nobody takes them for some time or has taken very many. */
  async fill(bytes: Uint8Array): Promise<void> {
    this.#output.bytes.set(bytes);
    let taken: boolean | undefined = true;
    const end = performance.now() + this.#patience;
    for (let count = 0; count < MANY && taken === true && performance.now() < end; count++) {
      taken = await until(() => {
        if (this.#ended || this.#connection.closed) return false;
        try {
          return send(this.fd, this.#output.address, bytes.length) >= 0 || undefined;
        } catch (error) {
          if (error instanceof OsError) return false;
          throw error;
        }
      }, FULL);
    }
  }

  /** Sends bytes as they are. */
  async sendBytes(bytes: Uint8Array, fds: readonly number[] = []): Promise<void> {
    if (bytes.length > this.#output.bytes.length) throw new RangeError(`${bytes.length} bytes at once`);
    this.#output.bytes.set(bytes);
    let done = 0;
    let withThem = fds;
    await until(() => {
      if (this.#ended || this.#connection.closed) return true;
      try {
        const sent = send(
          this.fd,
          this.#output.address + BigInt(done),
          bytes.length - done,
          withThem,
        );
        if (sent < 0) return undefined;
        done += sent;
        withThem = [];
      } catch (error) {
        if (!(error instanceof OsError)) throw error;
        // What it said before it left may still be read.
        return true;
      }
      return done === bytes.length ? true : undefined;
    }, this.#patience);
  }

  /**
   * The next message.
   *
   * @param ms how long to wait; as long as for an answer by default
   * @returns the message, `"end"` when the back-end has closed the connection, `"nothing"` when the time is over
   */
  async next(ms: number = this.#patience): Promise<Message | "end" | "nothing"> {
    return await until(() => this.#look(), ms) ?? "nothing";
  }

  #look(): Message | "end" | undefined {
    if (this.#ended || this.#connection.closed) return "end";
    try {
      const message = this.#connection.receive();
      if (message === null) return undefined;
      if (message === "end") this.#ended = true;
      else this.#heard = true;
      return message;
    } catch (error) {
      this.#ended = true;
      if (error instanceof OsError) return "end";
      if (!(error instanceof ProtocolError)) throw error;
      // The peer may leave amid a message that it sends; then that is what it does.
      fail("a message by the rules", error.message);
    }
  }

  /** Whether the back-end has closed the connection, or does so within the time. Messages before the end are dropped. */
  async ends(ms: number): Promise<boolean> {
    for (;;) {
      const message = await this.next(ms);
      if (message === "end") return true;
      if (message === "nothing") return false;
      message.fds.close();
    }
  }

  /** Closes it. */
  close(): void {
    this.#connection.close();
  }
}

/** A message from the back-end for people. */
export function describe(message: Message): string {
  const { header: { flags }, payload } = message;
  return `${describeMessage("out", message)} (flags 0x${flags.toString(16)}, ${payload.length} bytes)`;
}
