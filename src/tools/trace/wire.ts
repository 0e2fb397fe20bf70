/**
 * Two sockets as one connection: what comes from either side goes to the other.
 *
 * @module
 */

import { close, duplicate } from "../../../ffi/fd.ts";
import { EpollEvent } from "../../../ffi/epoll.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import type { Reactor } from "../../../ffi/reactor.ts";
import { hasLeft, send, shutdownSending } from "../../../ffi/socket.ts";
import { type Frame, Framer } from "./framer.ts";

/** Who sent something. */
export type Side = "front-end" | "back-end";

/** The other one. */
export function otherSide(side: Side): Side {
  return side === "front-end" ? "back-end" : "front-end";
}

/** How it went with a frame: passed on; under way, as the other side's buffer is full; or impossible. */
export type Outcome = "sent" | "waiting" | "undelivered";

/** Who looks at what crosses a wire. */
export interface WireObserver {
  /**
   * A frame has come. It may replace descriptors in the bags; the returned function is called when it has been sent, or
   * could not be.
   */
  arrived(from: Side, frame: Frame): (outcome: Outcome) => void;
  /** A direction stands still until more of a message comes, or until the other side reads. */
  held(): void;
  /** A side has closed its end, or has said that it sends no more. */
  left(side: Side, how: "closed" | "sends no more"): void;
  /** A frame that was under way will not arrive whole, as the other side has left. */
  abandoned(from: Side): void;
  /** The sockets do not work. */
  failed(error: unknown): void;
  /** Both ends are closed. Called once. */
  closed(): void;
}

/** Whether sending has failed because the other side has left. */
function isGone(error: unknown): boolean {
  return error instanceof OsError && (error.errno === Errno.EPIPE || error.errno === Errno.ECONNRESET);
}

/** Frames handled before other descriptors get their turn. */
const BATCH = 64;

/** One direction. */
class Flow {
  readonly from: Side;
  readonly framer: Framer;
  /** Since when the other side has not read, ms; 0 when it does. */
  blockedSince = 0;
  /** Nothing more will come, or nothing more can be delivered. */
  over = false;
  #frame: Frame | undefined;
  #piece = 0;
  #sent = 0;
  #writable = -1;
  #hangup = -1;
  #paused = false;
  readonly #wire: Wire;
  readonly #reactor: Reactor;

  constructor(from: Side, fd: number, wire: Wire, reactor: Reactor) {
    this.from = from;
    this.framer = new Framer(fd);
    this.#wire = wire;
    this.#reactor = reactor;
    reactor.watch(fd, () => this.pump());
  }

  get #target(): Framer {
    return this.#wire.flow(otherSide(this.from)).framer;
  }

  /** Passes on what has come. */
  pump(): void {
    try {
      for (let n = 0; n < BATCH && !this.over; n++) {
        if (this.#frame !== undefined) return;
        const frame = this.framer.next();
        if (frame === null) {
          if (this.framer.partial !== undefined) this.#wire.observer.held();
          return;
        }
        if (frame === "end") return this.#wire.ended(this);
        this.#forward(frame);
      }
    } catch (error) {
      this.#wire.fail(error);
    }
  }

  #forward(frame: Frame): void {
    const report = this.#wire.observer.arrived(this.from, frame);
    this.#frame = frame;
    this.#piece = this.#sent = 0;
    const flushed = this.#flush();
    report(flushed ? (this.over ? "undelivered" : "sent") : "waiting");
    if (!flushed) this.#wait();
    else if (this.over) this.#wire.stopped();
  }

  /** Sends the rest of the frame. Returns whether nothing of it is left to do. */
  #flush(): boolean {
    const frame = this.#frame as Frame;
    try {
      while (this.#sent < frame.bytes.length) {
        const { start, fds } = frame.pieces[this.#piece];
        const end = frame.pieces[this.#piece + 1]?.start ?? frame.bytes.length;
        const n = send(
          this.#target.fd,
          frame.address + BigInt(this.#sent),
          end - this.#sent,
          this.#sent === start ? fds.list() : [],
        );
        if (n < 0) return false;
        this.#sent += n;
        if (this.#sent === end) this.#piece++;
      }
    } catch (error) {
      if (!isGone(error)) throw error;
      this.stop();
    }
    this.#frame = undefined;
    this.framer.done();
    return true;
  }

  /** Takes nothing more until the other side has room. */
  #wait(): void {
    this.blockedSince = performance.now();
    this.#paused = true;
    this.#reactor.pause(this.framer.fd);
    // The socket itself is in the wait set already, for reading.
    this.#writable = duplicate(this.#target.fd);
    this.#reactor.watch(this.#writable, () => this.#retry(), EpollEvent.OUT);
    this.#wire.observer.held();
  }

  #retry(): void {
    try {
      if (!this.#flush()) return;
      this.#endWait();
      if (this.over) return this.#wire.stopped();
      this.pump();
    } catch (error) {
      this.#wire.fail(error);
    }
  }

  #endWait(): void {
    if (this.#writable < 0) return;
    this.blockedSince = 0;
    this.#reactor.unwatch(this.#writable);
    close(this.#writable);
    this.#writable = -1;
    this.#paused = false;
    if (!this.over) this.#reactor.resume(this.framer.fd);
  }

  /** Reads no more. */
  stop(): void {
    if (this.over) return;
    this.over = true;
    this.#reactor.unwatch(this.framer.fd);
  }

  /** Calls back when the side, which sends no more, has closed its end. */
  onHangup(callback: () => void): void {
    this.#hangup = duplicate(this.framer.fd);
    // A hang-up is always told of; nothing else is wanted.
    this.#reactor.watch(this.#hangup, callback, 0);
  }

  /** Looks at what has come and can no longer be delivered. */
  drain(): void {
    if (this.over || this.#paused) return;
    for (let n = 0; n < BATCH; n++) {
      const frame = this.framer.next();
      if (frame === null || frame === "end") return;
      this.#wire.observer.arrived(this.from, frame)("undelivered");
      this.framer.done();
    }
  }

  close(): void {
    this.stop();
    this.#endWait();
    if (this.#hangup >= 0) {
      this.#reactor.unwatch(this.#hangup);
      close(this.#hangup);
    }
    if (this.#frame !== undefined) this.#wire.observer.abandoned(this.from);
    this.framer.close();
  }
}

/**
 * A connection between a front-end and a back-end. Owns both sockets. Each direction holds one message at the most: when
 * a side does not read, the other is not read either, as if there were one socket between them.
 */
export class Wire {
  /** Who looks. */
  readonly observer: WireObserver;
  readonly #flows: Readonly<Record<Side, Flow>>;
  #closed = false;

  /** Takes over two connected sockets and starts passing on. */
  constructor(fds: Readonly<Record<Side, number>>, observer: WireObserver, reactor: Reactor) {
    this.observer = observer;
    this.#flows = {
      "front-end": new Flow("front-end", fds["front-end"], this, reactor),
      "back-end": new Flow("back-end", fds["back-end"], this, reactor),
    };
  }

  /** The direction that starts at a side. */
  flow(from: Side): Flow {
    return this.#flows[from];
  }

  /** Whether both ends are closed. */
  get isClosed(): boolean {
    return this.#closed;
  }

  /** A direction has come to its end; everything before has been delivered. */
  ended(flow: Flow): void {
    const back = this.#flows[otherSide(flow.from)];
    // A closed end takes no more answers; one that has only said that it sends no more still does.
    const gone = hasLeft(flow.framer.fd);
    if (!gone && !back.over) {
      this.observer.left(flow.from, "sends no more");
      flow.stop();
      flow.onHangup(() => this.ended(flow));
      shutdownSending(back.framer.fd);
      return;
    }
    this.observer.left(flow.from, "closed");
    try {
      back.drain();
    } catch (error) {
      this.observer.failed(error);
    }
    this.close();
  }

  /** A direction cannot deliver any more. The other side's end is seen by the other direction, unless that is over. */
  stopped(): void {
    if (Object.values(this.#flows).every(({ over }) => over)) this.close();
  }

  /** Something that should not happen. */
  fail(error: unknown): void {
    if (this.#closed) return;
    this.observer.failed(error);
    this.close();
  }

  /** Closes both ends. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const flow of Object.values(this.#flows)) flow.close();
    this.observer.closed();
  }
}
