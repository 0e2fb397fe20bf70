/**
 * A network at the other end of a stream socket.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import { EpollEvent } from "../../../ffi/epoll.ts";
import { Iovec } from "../../../ffi/iovec.ts";
import { Native } from "../../../ffi/native.ts";
import { OsError } from "../../../ffi/os_error.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import { accept, connect, listen } from "../../../ffi/socket.ts";
import { readPieces, writePieces } from "../../../ffi/vector_io.ts";
import { removeFile } from "../../../ffi/file.ts";
import { duplicate } from "../../../ffi/fd.ts";
import type { Frame } from "./frame.ts";
import { ETHERNET_HEADER, MAX_FRAME } from "./layout.ts";
import type { NetGuest, Network, NetworkPort } from "./network.ts";

/** Bytes before each frame: its length, in network order. */
const LENGTH_SIZE = 4;
/** Bytes that are kept for the peer, and from it. */
const ROOM = 4 * (MAX_FRAME + LENGTH_SIZE);
/** How long to wait before connecting again, ms. */
const RETRY = 250;

/** How a stream is connected. */
export interface StreamOptions {
  /** Path of the Unix socket. */
  readonly path: string;
  /** Whether to listen there for the peer, rather than connecting to it. */
  readonly listen?: boolean;
  /** Told when the peer comes and goes. */
  readonly onPeer?: (text: string, error?: unknown) => void;
}

/**
 * A peer that speaks what QEMU's `-netdev stream` speaks: each frame with its length before it. Such are passt (which gives
 * a guest the host's network without any privilege) and another QEMU. It is for one guest at a time. The peer may go and
 * come back; without one, frames of the guest are dropped.
 */
export class StreamNetwork implements Network {
  /** One guest at a time. */
  readonly exclusive = true;
  readonly #options: StreamOptions;
  readonly #reactor = Reactor.shared();
  readonly #input = new Native(ROOM);
  readonly #output = new Native(ROOM);
  readonly #iovec = new Iovec(1);
  #guest: NetGuest | undefined;
  #listener = -1;
  #fd = -1;
  /** Bytes of the input from here to there are not delivered yet. */
  #from = 0;
  #to = 0;
  /** Bytes of the output from here to there are not sent yet. */
  #unsent = 0;
  #filled = 0;
  /** Whether reading waits for buffers of the guest, and whether writing waits for the peer. */
  #readPaused = false;
  #writeWaits = -1;
  #refused = false;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  /**
   * Starts to connect or to listen.
   *
   * @throws {OsError} when it cannot listen
   */
  constructor(options: StreamOptions) {
    this.#options = options;
    if (options.listen === true) {
      this.#listener = listen(options.path);
      this.#reactor.watch(this.#listener, () => this.#accept());
    } else {
      this.#connect();
    }
  }

  /** Whether a peer is there. */
  get connected(): boolean {
    return this.#fd >= 0;
  }

  /** {@link Network.attach}. */
  attach(guest: NetGuest): NetworkPort {
    this.#guest = guest;
    return {
      send: (frame) => this.#send(frame),
      flush: () => this.#flush(),
      refilled: () => this.#resumeReading(),
      detach: () => {
        this.#guest = undefined;
        this.#refused = false;
        // What is there now was for this guest.
        this.#from = this.#to;
        this.#resumeReading();
      },
    };
  }

  #connect(): void {
    try {
      this.#start(connect(this.#options.path));
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      this.#retry = setTimeout(() => this.#connect(), RETRY);
    }
  }

  #accept(): void {
    let fd: number | null;
    try {
      fd = accept(this.#listener);
    } catch (error) {
      // Out of descriptors, most likely. It is still there when some are free again.
      this.#options.onPeer?.("a peer cannot be accepted", error);
      this.#reactor.pause(this.#listener);
      this.#retry = setTimeout(() => this.#reactor.resume(this.#listener), RETRY);
      return;
    }
    if (fd === null) return;
    // One wire has two ends.
    if (this.#fd >= 0) close(fd);
    else this.#start(fd);
  }

  #start(fd: number): void {
    this.#fd = fd;
    this.#from =
      this.#to =
      this.#unsent =
      this.#filled =
        0;
    this.#readPaused = false;
    this.#reactor.watch(fd, () => this.#receive());
    this.#options.onPeer?.("the peer is connected");
  }

  #lost(error?: unknown): void {
    if (this.#fd < 0) return;
    this.#stopWriting();
    this.#reactor.unwatch(this.#fd);
    close(this.#fd);
    this.#fd = -1;
    this.#unsent = this.#filled = 0;
    this.#options.onPeer?.("the peer has gone", error);
    this.#resumeSending();
    if (this.#listener < 0 && !this.#closed) this.#retry = setTimeout(() => this.#connect(), RETRY);
  }

  #send(frame: Frame): boolean {
    if (this.#fd < 0) return true;
    const length = frame.byteLength;
    if (this.#filled + LENGTH_SIZE + length > ROOM) {
      this.#flush();
      if (this.#filled + LENGTH_SIZE + length > ROOM) {
        this.#refused = true;
        return false;
      }
    }
    this.#output.view.setUint32(this.#filled, length);
    frame.copyTo(
      this.#output.bytes.subarray(this.#filled + LENGTH_SIZE, this.#filled + LENGTH_SIZE + length),
    );
    this.#filled += LENGTH_SIZE + length;
    return true;
  }

  #flush(): void {
    if (this.#fd < 0 || this.#writeWaits >= 0) return;
    try {
      while (this.#unsent < this.#filled) {
        this.#iovec.clear();
        this.#iovec.push(Number(this.#output.address) + this.#unsent, this.#filled - this.#unsent);
        const sent = writePieces(this.#fd, this.#iovec);
        if (sent < 0) return this.#waitForPeer();
        this.#unsent += sent;
      }
    } catch (error) {
      return this.#lost(error);
    }
    this.#unsent = this.#filled = 0;
  }

  #waitForPeer(): void {
    this.#output.bytes.copyWithin(0, this.#unsent, this.#filled);
    this.#filled -= this.#unsent;
    this.#unsent = 0;
    // The same descriptor is waited for already, for reading.
    this.#writeWaits = duplicate(this.#fd);
    this.#reactor.watch(this.#writeWaits, () => {
      this.#stopWriting();
      this.#flush();
      this.#resumeSending();
    }, EpollEvent.OUT);
  }

  #stopWriting(): void {
    if (this.#writeWaits < 0) return;
    this.#reactor.unwatch(this.#writeWaits);
    close(this.#writeWaits);
    this.#writeWaits = -1;
  }

  #resumeSending(): void {
    if (!this.#refused || this.#writeWaits >= 0) return;
    this.#refused = false;
    this.#guest?.resume(0);
  }

  #receive(): void {
    this.#iovec.clear();
    this.#iovec.push(Number(this.#input.address) + this.#to, ROOM - this.#to);
    try {
      const length = readPieces(this.#fd, this.#iovec);
      if (length < 0) return;
      if (length === 0) return this.#lost();
      this.#to += length;
      this.#deliver();
    } catch (error) {
      this.#lost(error);
    }
  }

  /** Delivers the frames that are complete; what is left moves to the start. */
  #deliver(): void {
    const { bytes, view } = this.#input;
    while (this.#to - this.#from >= LENGTH_SIZE) {
      const length = view.getUint32(this.#from);
      if (length < ETHERNET_HEADER || length > MAX_FRAME) {
        throw new RangeError(`a frame must have ${ETHERNET_HEADER} to ${MAX_FRAME} bytes, got ${length}`);
      }
      const start = this.#from + LENGTH_SIZE;
      if (start + length > this.#to) break;
      const guest = this.#guest;
      if (guest !== undefined && guest.isRunning(0)) {
        if (!guest.hasRoom(length, 0)) {
          this.#pauseReading();
          break;
        }
        guest.deliver(bytes.subarray(start, start + length));
      }
      this.#from = start + length;
    }
    bytes.copyWithin(0, this.#from, this.#to);
    this.#to -= this.#from;
    this.#from = 0;
  }

  #pauseReading(): void {
    if (this.#readPaused) return;
    this.#readPaused = true;
    this.#reactor.pause(this.#fd);
  }

  #resumeReading(): void {
    if (!this.#readPaused || this.#fd < 0) return;
    this.#readPaused = false;
    this.#reactor.resume(this.#fd);
    try {
      this.#deliver();
    } catch (error) {
      this.#lost(error);
    }
  }

  /** Ends the connection. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#lost();
    if (this.#listener < 0) return;
    this.#reactor.unwatch(this.#listener);
    close(this.#listener);
    removeFile(this.#options.path);
  }
}
