/**
 * A program in this process at the host's end of a connection.
 *
 * @module
 */

import type { Segments } from "../../memory/segments.ts";
import { type Circuit, type CircuitEnd, VsockError } from "./circuit.ts";
import { MessageFlag, ShutdownFlag } from "./layout.ts";
import type { Receiver } from "./receiver.ts";

/** Bytes that wait for the program to read, above which the guest has to wait. */
const READ_AHEAD = 65536;

/** A connection with a guest, in the hands of a program. */
export interface VsockConnection {
  /** `stream`: bytes in a row. `seqpacket`: each chunk is a message, in both directions. */
  readonly type: "stream" | "seqpacket";
  /** The guest's CID. */
  readonly guestCid: number;
  /** The guest's port. */
  readonly guestPort: number;
  /** The port on the host's side. */
  readonly hostPort: number;
  /**
   * What the guest sends. It may send more only as this is read: what is not read is kept, up to the device's `bufferSize`.
   * Ends when the guest has shut down sending; fails with a {@link VsockError} when the connection is reset.
   */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /**
   * What the guest gets. A write resolves when the guest has it in its buffers. Closing shuts down this direction; aborting
   * resets the connection.
   */
  readonly writable: WritableStream<Uint8Array>;
  /** Resolves when the connection is over in both directions; rejects with a {@link VsockError} when it was reset. */
  readonly closed: Promise<void>;
  /** Ends both directions. What was written is still sent. */
  close(): void;
  /** Ends it at once, with nothing more sent. Linux shows this to the guest's program as the end. */
  reset(): void;
}

interface Write {
  readonly bytes: Uint8Array;
  at: number;
  resolve(): void;
  reject(error: unknown): void;
}

/** Both. */
export class ProgramEnd implements CircuitEnd, VsockConnection {
  readonly type: "stream" | "seqpacket";
  readonly guestCid: number;
  readonly guestPort: number;
  readonly hostPort: number;
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly writable: WritableStream<Uint8Array>;
  readonly closed: Promise<void>;
  /** Resolves when the guest has accepted. */
  readonly accepted: Promise<this>;
  readonly #circuit: Circuit;
  readonly #writes: Write[] = [];
  #input: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>> | undefined;
  #output: WritableStreamDefaultController | undefined;
  #accept: (connection: this) => void = () => {};
  #refuse: (error: unknown) => void = () => {};
  #finished: () => void = () => {};
  #fail: (error: unknown) => void = () => {};
  #closing = false;
  #dead = false;
  #sent = false;

  constructor(circuit: Circuit, guestCid: number) {
    this.#circuit = circuit;
    this.type = circuit.seqpacket ? "seqpacket" : "stream";
    this.guestCid = guestCid;
    this.guestPort = circuit.guestPort;
    this.hostPort = circuit.hostPort;
    circuit.end = this;
    this.readable = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => void (this.#input = controller),
      pull: () => this.drain(),
      cancel: () => {
        this.#input = undefined;
        this.#finish(ShutdownFlag.RECEIVE);
      },
    }, new ByteLengthQueuingStrategy({ highWaterMark: READ_AHEAD }));
    this.writable = new WritableStream({
      start: (controller) => void (this.#output = controller),
      write: (bytes) => this.#write(bytes),
      close: () => {
        this.#sent = true;
        this.#finish(ShutdownFlag.SEND);
      },
      abort: () => this.#circuit.reset(),
    });
    this.closed = new Promise((resolve, reject) => {
      this.#finished = resolve;
      this.#fail = reject;
    });
    this.accepted = new Promise((resolve, reject) => {
      this.#accept = resolve;
      this.#refuse = reject;
    });
    // Who wants to know asks for them; to nobody else is an end an error.
    this.closed.catch(() => {});
    this.accepted.catch(() => {});
  }

  /** One direction is over; when both are, so is the connection. */
  #finish(flags: number): void {
    const both = this.#sent && this.#input === undefined;
    this.#circuit.finish(both ? ShutdownFlag.BOTH : flags);
  }

  #write(bytes: Uint8Array): Promise<void> {
    if (this.#dead) return Promise.reject(new VsockError("EPIPE", "the connection is over"));
    if (!(bytes instanceof Uint8Array)) {
      return Promise.reject(new TypeError("a vsock connection takes Uint8Array chunks"));
    }
    if (this.#circuit.seqpacket && this.#circuit.peerBuffer < bytes.length) {
      const text = `a message may have ${this.#circuit.peerBuffer} bytes, got ${bytes.length}`;
      return Promise.reject(new VsockError("EMSGSIZE", text));
    }
    if (bytes.length === 0 && !this.#circuit.seqpacket) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#writes.push({ bytes, at: 0, resolve, reject });
      this.#circuit.offer();
    });
  }

  close(): void {
    if (this.#closing || this.#dead) return;
    this.#closing = true;
    this.#endInput();
    if (this.#writes.length === 0) this.#finishBoth();
  }

  #finishBoth(): void {
    this.#output?.error(new VsockError("EPIPE", "the connection was closed"));
    this.#circuit.finish(ShutdownFlag.BOTH);
  }

  reset(): void {
    this.#circuit.reset();
  }

  opened(): void {
    this.#accept(this);
  }

  #endInput(error?: VsockError): void {
    const input = this.#input;
    this.#input = undefined;
    if (error === undefined) input?.close();
    else input?.error(error);
  }

  take(payload: Segments, position: number, length: number): number {
    const input = this.#input;
    if (input === undefined) return length;
    if ((input.desiredSize ?? 0) <= 0) return 0;
    const bytes = new Uint8Array(length);
    payload.copyTo(bytes, position);
    input.enqueue(bytes);
    return length;
  }

  drain(): void {
    const { buffer, seqpacket } = this.#circuit;
    while (this.#input !== undefined && (this.#input.desiredSize ?? 0) > 0) {
      const length = seqpacket ? buffer.messageLength : Math.min(buffer.length, READ_AHEAD);
      if (length < 0 || (length === 0 && !seqpacket)) return;
      // An empty message has no weight in a stream that counts bytes, so it does not hold up those after it.
      const bytes = buffer.copy(length);
      if (seqpacket) buffer.unmark();
      this.#input.enqueue(bytes);
      this.#circuit.consumed(length);
    }
  }

  send(receiver: Receiver, credit: number): boolean {
    for (let left = credit; left > 0;) {
      const write = this.#writes[0];
      if (write === undefined) {
        this.#circuit.withdraw();
        if (this.#closing) this.#finishBoth();
        return true;
      }
      const end = Math.min(write.bytes.length, write.at + left);
      const last = end === write.bytes.length && this.#circuit.seqpacket;
      const flags = last ? MessageFlag.END_OF_MESSAGE : 0;
      const sent = receiver.put(this.#circuit, write.bytes.subarray(write.at, end), flags);
      if (sent < 0) return false;
      left -= sent;
      write.at += sent;
      if (write.at < write.bytes.length) continue;
      this.#writes.shift();
      write.resolve();
    }
    return true;
  }

  ended(): void {
    this.#endInput();
    if (this.#sent) this.#circuit.finish(ShutdownFlag.BOTH);
  }

  refused(): void {
    this.#failWrites(new VsockError("EPIPE", "the guest takes no more"));
  }

  #failWrites(error: VsockError): void {
    for (const { reject } of this.#writes.splice(0)) reject(error);
    this.#output?.error(error);
  }

  over(error: VsockError | undefined): void {
    this.#dead = true;
    this.#endInput(error);
    this.#failWrites(error ?? new VsockError("EPIPE", "the connection is over"));
    this.#refuse(error ?? new VsockError("ECONNRESET", "the connection was closed"));
    if (error === undefined) this.#finished();
    else this.#fail(error);
  }
}
