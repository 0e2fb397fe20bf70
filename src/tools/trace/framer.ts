/**
 * A stream socket as a sequence of messages, whatever they say.
 *
 * @module
 */

import { close, DescriptorBag } from "../../../ffi/fd.ts";
import { Native } from "../../../ffi/native.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import { receive, shutdown } from "../../../ffi/socket.ts";
import { type Header, header } from "../../protocol/header.ts";

/**
 * The largest payload that is taken for one, bytes. The largest of the standard is 2056; who says more than this is not
 * speaking vhost-user.
 */
export const SANE_PAYLOAD = 1 << 20;

const FIRST_ROOM = header.size + 4096;

/** Bytes of a frame, and the descriptors that came with the first of them. */
export interface Piece {
  /** Offset of the first byte in the frame. */
  readonly start: number;
  /** The descriptors. */
  readonly fds: DescriptorBag;
}

/**
 * What was read: a whole message; the beginning of one after which the stream ended; or bytes of a stream that has
 * stopped being messages.
 */
export interface Frame {
  /** Which of these it is. */
  readonly kind: "message" | "part" | "raw";
  /** The header, where all of it has come and says something possible. */
  readonly header: Header | undefined;
  /** Everything, header included. Valid until the next call of {@link Framer.next}. */
  readonly bytes: Uint8Array;
  /** Address of the first byte. */
  readonly address: bigint;
  /** Where descriptors came, in order; the first is at byte 0 and may have none. */
  readonly pieces: readonly Piece[];
  /** Whether the kernel could not give us all descriptors. */
  readonly lost: boolean;
}

/**
 * Reads messages from a socket without judging them. Owns the socket, and the descriptors of the frame that it has given
 * out last.
 */
export class Framer {
  /** The socket. */
  readonly fd: number;
  #input = new Native(FIRST_ROOM);
  #have = 0;
  #header: Header | undefined;
  #pieces: Piece[] = [];
  #lost = false;
  #raw = false;
  #ended = false;

  /** Takes over a connected Unix stream socket. */
  constructor(fd: number) {
    this.fd = fd;
  }

  /** How much of a message has come so far, when it is not whole yet. */
  get partial(): { readonly have: number; readonly header: Header | undefined } | undefined {
    return this.#have === 0 || this.#raw ? undefined : { have: this.#have, header: this.#header };
  }

  /**
   * The next frame, as far as it has come; never waits. Call {@link done} before the next.
   *
   * @returns the frame, `null` when the rest of it has not come yet, `"end"` at the end of the stream
   * @throws {OsError} when the socket is broken
   */
  next(): Frame | null | "end" {
    for (;;) {
      const wanted = this.#raw
        ? this.#input.bytes.length
        : header.size + (this.#have < header.size ? 0 : this.#header?.size ?? 0);
      if (this.#have >= header.size && this.#have === wanted) {
        return this.#frame(this.#raw ? "raw" : "message");
      }
      const length = this.#read(wanted);
      if (length === 0 && this.#have > 0) return this.#frame("part");
      if (length === 0) return "end";
      if (length < 0) return null;
      if (this.#raw) return this.#frame("raw");
      if (this.#have === header.size && this.#header === undefined) {
        this.#header = header.read(this.#input.view);
        if (this.#header.size > SANE_PAYLOAD) {
          this.#raw = true;
          return this.#frame("raw");
        }
        this.#makeRoom(header.size + this.#header.size);
      }
    }
  }

  /** Bytes read; 0 at the end of the stream, -1 when nothing has come yet. */
  #read(wanted: number): number {
    if (this.#ended) return 0;
    const at = this.#input.address + BigInt(this.#have);
    let received;
    try {
      received = receive(this.fd, at, wanted - this.#have);
    } catch (error) {
      // The peer has left without reading all that was sent to it.
      if (!(error instanceof OsError) || error.errno !== Errno.ECONNRESET) throw error;
      received = { length: 0, fds: new DescriptorBag(), truncated: false };
    }
    const { length, fds, truncated } = received;
    if (truncated) this.#lost = true;
    if (length === 0) this.#ended = true;
    if (length > 0 && (this.#have === 0 || fds.length > 0)) this.#pieces.push({ start: this.#have, fds });
    else fds.close();
    if (length > 0) this.#have += length;
    return length;
  }

  #makeRoom(size: number): void {
    if (size <= this.#input.bytes.length) return;
    const larger = new Native(size);
    larger.bytes.set(this.#input.bytes.subarray(0, this.#have));
    this.#input = larger;
  }

  #frame(kind: Frame["kind"]): Frame {
    return {
      kind,
      header: this.#header,
      bytes: this.#input.bytes.subarray(0, this.#have),
      address: this.#input.address,
      pieces: this.#pieces,
      lost: this.#lost,
    };
  }

  /** Closes the descriptors of the last frame and lets its memory be used again. */
  done(): void {
    for (const { fds } of this.#pieces) fds.close();
    this.#pieces = [];
    this.#have = 0;
    this.#header = undefined;
    this.#lost = false;
    if (!this.#raw && this.#input.bytes.length > FIRST_ROOM) this.#input = new Native(FIRST_ROOM);
  }

  /** Ends both directions and closes the socket. */
  close(): void {
    this.done();
    shutdown(this.fd);
    close(this.fd);
  }
}
