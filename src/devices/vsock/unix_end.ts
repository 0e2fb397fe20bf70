/**
 * A Unix socket at the host's end of a connection.
 *
 * @module
 */

import { EpollEvent } from "../../../ffi/epoll.ts";
import { close } from "../../../ffi/fd.ts";
import { Iovec } from "../../../ffi/iovec.ts";
import { Native } from "../../../ffi/native.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import { send, shutdownReceiving, shutdownSending } from "../../../ffi/socket.ts";
import { readPieces, writePieces } from "../../../ffi/vector_io.ts";
import type { Segments } from "../../memory/segments.ts";
import type { Circuit, CircuitEnd } from "./circuit.ts";
import { MessageFlag, ShutdownFlag } from "./layout.ts";
import type { Receiver } from "./receiver.ts";

/** Bytes of one turn. */
const TURN = 1 << 18;
/** What is waited for: nothing. */
const PAUSED = -1;

const iovec = new Iovec();

/** A socket and what is waited for at it. Owns the descriptor. */
export class UnixEnd implements CircuitEnd {
  readonly #circuit: Circuit;
  readonly #onError: (error: unknown) => void;
  readonly #opened: ((end: UnixEnd) => boolean) | undefined;
  readonly #reactor = Reactor.shared();
  #fd: number;
  #watching = PAUSED;
  /** Bytes that came before the connection stood. */
  #early: Uint8Array;
  /** Whether the guest has been offered what there is to read, and has not got it yet. */
  #offered = false;
  /** Whether reading has to wait for that. */
  #waits = false;
  /** Whether writing has to wait for the peer. */
  #full = false;
  /** Whether the peer sends no more, or nobody wants it. */
  #silent = false;
  /** A message that the guest has got `#at` bytes of. */
  #message: Native | undefined;
  #length = 0;
  #at = 0;

  /**
   * Takes over a socket, for a connection that stands or is asked for.
   *
   * @param opened called when the guest accepts; returns false when that cannot be told to the peer
   * @param early what the peer has sent already
   */
  constructor(
    circuit: Circuit,
    fd: number,
    onError: (error: unknown) => void,
    opened?: (end: UnixEnd) => boolean,
    early: Uint8Array = new Uint8Array(0),
  ) {
    this.#circuit = circuit;
    this.#fd = fd;
    this.#onError = onError;
    this.#opened = opened;
    this.#early = early;
    circuit.end = this;
    if (opened === undefined) this.#start();
  }

  /** The descriptor; -1 when it is closed. */
  get fd(): number {
    return this.#fd;
  }

  /** {@link CircuitEnd.opened}. */
  opened(): void {
    if (this.#opened?.(this) === false) return this.#circuit.reset();
    this.#start();
  }

  #start(): void {
    this.#watching = EpollEvent.IN;
    this.#reactor.watch(this.#fd, () => this.#woken(), EpollEvent.IN);
    if (this.#early.length > 0) this.#offer();
  }

  #await(): void {
    if (this.#fd < 0) return;
    const input = !this.#silent && !this.#waits ? EpollEvent.IN : 0;
    const events = input | (this.#full ? EpollEvent.OUT : 0);
    // While there is something to read, a peer that has left is no news yet.
    const wanted = events === 0 && !this.#silent ? PAUSED : events;
    if (wanted === this.#watching) return;
    if (wanted === PAUSED) this.#reactor.pause(this.#fd);
    else if (this.#watching === PAUSED) this.#reactor.resume(this.#fd, wanted);
    else this.#reactor.change(this.#fd, wanted);
    this.#watching = wanted;
  }

  #woken(): void {
    if (this.#full) {
      this.#full = false;
      this.drain();
      this.#await();
    } else if (this.#silent) {
      // Nothing is waited for any more, so this is the peer leaving for good.
      return this.#leave();
    }
    if (this.#fd < 0 || this.#silent) return;
    if (this.#offered) {
      this.#waits = true;
      this.#await();
    } else {
      this.#offer();
    }
  }

  #offer(): void {
    this.#offered = true;
    this.#circuit.offer();
  }

  /** Everything there was has been read. */
  #served(): void {
    this.#offered = this.#waits = false;
    this.#circuit.withdraw();
    this.#await();
  }

  #leave(): void {
    this.#close();
    this.#circuit.finish(ShutdownFlag.BOTH);
  }

  #close(): void {
    if (this.#fd < 0) return;
    this.#reactor.unwatch(this.#fd);
    close(this.#fd);
    this.#fd = -1;
    this.#message = undefined;
  }

  /** {@link CircuitEnd.take}. */
  take(payload: Segments, position: number, length: number): number {
    if (this.#fd < 0) return length;
    if (this.#full) return 0;
    iovec.clear();
    payload.toIovec(iovec, position, length);
    const taken = this.#write();
    return taken === GONE ? length : taken;
  }

  /** Writes what is in the iovec. Returns bytes written, or {@link GONE}. */
  #write(): number {
    const wanted = iovec.byteLength;
    try {
      const written = writePieces(this.#fd, iovec);
      if (written < wanted) {
        this.#full = true;
        this.#await();
      }
      return Math.max(0, written);
    } catch (error) {
      this.#failed(error);
      return GONE;
    }
  }

  #failed(error: unknown): void {
    const number = error instanceof OsError ? error.errno : 0;
    // The peer takes no more, but what it has sent before may still be there to be read.
    if (number === Errno.EPIPE) return this.#circuit.finish(ShutdownFlag.RECEIVE);
    if (number !== Errno.ECONNRESET) this.#onError(error);
    this.#circuit.reset();
  }

  /** {@link CircuitEnd.drain}. */
  drain(): void {
    if (this.#circuit.seqpacket) return this.#drainMessages();
    const { buffer } = this.#circuit;
    while (this.#fd >= 0 && !this.#full && buffer.length > 0) {
      iovec.clear();
      buffer.toIovec(iovec, buffer.length);
      const written = this.#write();
      if (written === GONE) return;
      this.#circuit.consumed(written);
    }
  }

  #drainMessages(): void {
    const { buffer } = this.#circuit;
    while (this.#fd >= 0 && !this.#full && buffer.messageLength >= 0) {
      const length = buffer.messageLength;
      iovec.clear();
      buffer.toIovec(iovec, length);
      // writev(2) of nothing does nothing, where a message of no bytes is one all the same.
      const written = length === 0 ? this.#writeNothing() : this.#write();
      if (written === GONE || this.#full) return;
      buffer.unmark();
      this.#circuit.consumed(length);
    }
  }

  #writeNothing(): number {
    try {
      if (send(this.#fd, 0n, 0) < 0) {
        this.#full = true;
        this.#await();
      }
      return 0;
    } catch (error) {
      this.#failed(error);
      return GONE;
    }
  }

  /** {@link CircuitEnd.send}. */
  send(receiver: Receiver, credit: number): boolean {
    if (this.#fd < 0) {
      this.#circuit.withdraw();
      return true;
    }
    try {
      if (this.#circuit.seqpacket) return this.#sendMessage(receiver, credit);
      return this.#early.length > 0 ? this.#sendEarly(receiver, credit) : this.#sendBytes(receiver, credit);
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      this.#failed(error);
      return true;
    }
  }

  #sendBytes(receiver: Receiver, credit: number): boolean {
    // Right from the socket into guest memory.
    const room = receiver.reserve(Math.min(credit, TURN));
    const wanted = room.byteLength;
    if (wanted === 0) return false;
    const length = readPieces(this.#fd, room);
    if (length === 0) this.#end();
    if (length > 0) receiver.commit(this.#circuit, length);
    if (length < wanted) this.#served();
    return true;
  }

  #sendEarly(receiver: Receiver, credit: number): boolean {
    const sent = receiver.put(this.#circuit, this.#early.subarray(0, credit), 0);
    if (sent < 0) return false;
    this.#early = this.#early.subarray(sent);
    return true;
  }

  #end(): void {
    this.#silent = true;
    this.#circuit.finish(ShutdownFlag.SEND);
  }

  #sendMessage(receiver: Receiver, credit: number): boolean {
    const { bufferSize, peerBuffer } = this.#circuit;
    const message = this.#message ??= new Native(bufferSize + 1);
    if (this.#at === this.#length && !this.#readMessage(message)) return true;
    if (this.#length > Math.min(bufferSize, peerBuffer)) {
      this.#onError(new RangeError(`a message has more than ${Math.min(bufferSize, peerBuffer)} bytes`));
      this.#circuit.reset();
      return true;
    }
    for (let left = credit; left > 0 && this.#at < this.#length;) {
      const end = Math.min(this.#length, this.#at + left);
      const flags = end === this.#length ? MessageFlag.END_OF_MESSAGE : 0;
      const sent = receiver.put(this.#circuit, message.bytes.subarray(this.#at, end), flags);
      if (sent < 0) return false;
      this.#at += sent;
      left -= sent;
    }
    return true;
  }

  /** Returns false when there is none. */
  #readMessage(message: Native): boolean {
    iovec.clear();
    iovec.push(Number(message.address), message.buffer.byteLength);
    const length = readPieces(this.#fd, iovec);
    this.#at = 0;
    this.#length = Math.max(0, length);
    if (length === 0) this.#end();
    if (length <= 0) this.#served();
    return length > 0;
  }

  /** {@link CircuitEnd.ended}. */
  ended(): void {
    if (this.#fd >= 0) shutdownSending(this.#fd);
  }

  /** {@link CircuitEnd.refused}. */
  refused(): void {
    if (this.#fd < 0) return;
    shutdownReceiving(this.#fd);
    this.#silent = true;
    this.#await();
  }

  /** {@link CircuitEnd.over}. */
  over(): void {
    this.#close();
  }
}

/** Of {@link UnixEnd}: the peer is gone. */
const GONE = -1;
