/**
 * A stream socket as a sequence of messages.
 *
 * @module
 */

import { close, DescriptorBag } from "../../ffi/fd.ts";
import { Native } from "../../ffi/native.ts";
import { MAX_DESCRIPTORS, receive, send, shutdown } from "../../ffi/socket.ts";
import { ProtocolError } from "../protocol/error.ts";
import { checkHeader, type Header, header, HeaderFlag, MAX_PAYLOAD, VERSION } from "../protocol/header.ts";
import { messageName, type MessageTable } from "../protocol/messages.ts";

/** A whole message. */
export interface Message {
  /** Its header. */
  readonly header: Header;
  /** Its name, or `message <id>` for one that the table does not have. */
  readonly name: string;
  /** Its payload, a copy. */
  readonly payload: Uint8Array;
  /** The descriptors that came with it. Whoever handles the message closes the bag. */
  readonly fds: DescriptorBag;
}

/** What has come of a message whose rest has not. */
export interface PartialMessage {
  /** Its first bytes; none between messages. */
  readonly bytes: Uint8Array;
  /** The descriptors that came with them. */
  readonly fds: DescriptorBag;
}

/** Who looks at the messages that cross a connection, without taking part. */
export type Tap = (direction: "in" | "out", message: Message) => void;

/**
 * Frames messages over a non-blocking socket, in both directions. Owns the socket, and every descriptor that it has
 * received and not handed over.
 */
export class Connection {
  /** The socket. */
  readonly fd: number;
  /** Called with every message received or sent. */
  tap: Tap | undefined;
  readonly #table: MessageTable;
  readonly #input = new Native(header.size + MAX_PAYLOAD);
  readonly #output = new Native(header.size + MAX_PAYLOAD);
  #have = 0;
  #header: Header | undefined;
  #fds: DescriptorBag | undefined;
  #closed = false;

  /**
   * Takes over a socket.
   *
   * @param fd a connected, non-blocking Unix stream socket
   * @param table names of the messages, for errors
   * @param begun what somebody else has read already; its descriptors are the connection's
   * @throws {ProtocolError} when that is not the beginning of a message
   */
  constructor(fd: number, table: MessageTable, begun?: PartialMessage) {
    this.fd = fd;
    this.#table = table;
    if (begun === undefined || begun.bytes.length === 0) return;
    if (begun.bytes.length > this.#input.bytes.length) {
      throw new ProtocolError("message header", `no message has ${begun.bytes.length} bytes`);
    }
    this.#input.bytes.set(begun.bytes);
    this.#have = begun.bytes.length;
    this.#fds = begun.fds;
    this.#readHeader();
    if (this.#header !== undefined && this.#have >= header.size + this.#header.size) {
      throw new ProtocolError(this.#name, "it has come whole");
    }
  }

  /** What has come of the next message; stays the connection's. */
  get begun(): PartialMessage {
    return { bytes: this.#input.bytes.slice(0, this.#have), fds: this.#fds ?? new DescriptorBag() };
  }

  /** Whether {@link close} has been called. */
  get closed(): boolean {
    return this.#closed;
  }

  /**
   * The next message, as far as it has come; never waits.
   *
   * @returns the message, `null` when the rest of it has not come yet, `"end"` when the peer has left between messages
   * @throws {ProtocolError} when the stream is not one of messages; it cannot be read further
   * @throws {OsError} when the socket is broken
   */
  receive(): Message | null | "end" {
    for (;;) {
      const wanted = header.size + (this.#header?.size ?? 0);
      if (this.#have === wanted && this.#header !== undefined) return this.#take(this.#header);
      const { length, fds, truncated } = receive(
        this.fd,
        this.#input.address + BigInt(this.#have),
        wanted - this.#have,
      );
      if (this.#fds === undefined) this.#fds = fds;
      else this.#fds.append(fds);
      if (truncated) {
        throw new ProtocolError(this.#name, "descriptors were lost: more came than this process can take");
      }
      // They should come with the first byte; a peer that adds some to every byte must not use up our table.
      if (this.#fds.length > MAX_DESCRIPTORS) {
        throw new ProtocolError(
          this.#name,
          `descriptors: at most ${MAX_DESCRIPTORS}, got ${this.#fds.length}`,
        );
      }
      if (length < 0) return null;
      if (length === 0) {
        if (this.#have === 0) return "end";
        throw new ProtocolError(this.#name, `the peer left after ${this.#have} bytes of a message`);
      }
      this.#have += length;
      this.#readHeader();
    }
  }

  #readHeader(): void {
    if (this.#have < header.size || this.#header !== undefined) return;
    this.#header = header.read(this.#input.view);
    checkHeader(this.#header, this.#name);
  }

  get #name(): string {
    if (this.#header === undefined) return "message header";
    return messageName(this.#table, this.#header.request) ?? `message ${this.#header.request}`;
  }

  #take(head: Header): Message {
    const message: Message = {
      header: head,
      name: this.#name,
      payload: this.#input.bytes.slice(header.size, this.#have),
      fds: this.#fds as DescriptorBag,
    };
    this.#have = 0;
    this.#header = undefined;
    this.#fds = undefined;
    this.tap?.("in", message);
    return message;
  }

  /**
   * Sends a message. Never waits: a peer that leaves so many replies unread that its buffer is full has stopped taking
   * part, and the connection cannot go on.
   *
   * @throws {ProtocolError} when the peer's buffer is full, or after {@link close}
   * @throws {OsError} when the peer has gone
   */
  send(request: number, flags: number, payload: Uint8Array, fds: DescriptorBag): void {
    if (this.trySend(request, flags, payload, fds)) return;
    const name = messageName(this.#table, request) ?? `message ${request}`;
    throw new ProtocolError(name, "the peer does not read its messages: buffer full");
  }

  /**
   * {@link send} for who can wait.
   *
   * @param flags of {@link HeaderFlag}, without the version
   * @param fds the peer gets copies; the caller keeps its own
   * @returns false when the peer's buffer is full: nothing was sent
   * @throws {ProtocolError} after {@link close}
   * @throws {OsError} when the peer has gone
   */
  trySend(request: number, flags: number, payload: Uint8Array, fds: DescriptorBag): boolean {
    const head: Header = { request, flags: VERSION | flags, size: payload.length };
    const length = header.size + payload.length;
    const name = messageName(this.#table, request) ?? `message ${request}`;
    // The number of the descriptor may belong to another connection by now.
    if (this.#closed) throw new ProtocolError(name, "the connection is closed");
    if (payload.length > MAX_PAYLOAD) {
      throw new RangeError(`${name}: payload of ${payload.length} bytes, at most ${MAX_PAYLOAD}`);
    }
    header.write(this.#output.view, 0, head);
    this.#output.bytes.set(payload, header.size);
    const sent = send(this.fd, this.#output.address, length, fds.list());
    // A message of this size goes into one buffer of the kernel: whole, or not at all.
    if (sent < 0) return false;
    if (sent !== length) throw new ProtocolError(name, `${sent} of ${length} bytes were sent`);
    this.tap?.("out", { header: head, name, payload, fds });
    return true;
  }

  /** Whether a header belongs to a reply. */
  static isReply({ flags }: Header): boolean {
    return (flags & HeaderFlag.REPLY) !== 0;
  }

  /** Closes the socket and every descriptor that nobody took. */
  close(): void {
    if (!this.#closed) shutdown(this.fd);
    this.release();
  }

  /** The same, for a socket that another process goes on with: to the peer nothing happens. */
  release(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#fds?.close();
    close(this.fd);
  }
}
