/**
 * One connection of a guest, as the protocol sees it.
 *
 * @module
 */

import type { Segments } from "../../memory/segments.ts";
import { ByteQueue } from "./byte_queue.ts";
import { MessageFlag, ShutdownFlag, VSOCK_HEADER_SIZE, VsockOp, VsockType } from "./layout.ts";
import type { Packet } from "./packet.ts";
import type { Receiver, Sender } from "./receiver.ts";

/** The most payload of a packet that Linux sends. A guest that sees less room than this may wait for more. */
const LARGE_PACKET = 65536;

/** Why a connection has ended before its time. */
export class VsockError extends Error {
  /** The error's class name. */
  override readonly name = "VsockError";
  /** What it would be called at a socket. */
  readonly code:
    | "ECONNREFUSED"
    | "ECONNRESET"
    | "ETIMEDOUT"
    | "EMSGSIZE"
    | "ENETUNREACH"
    | "EPIPE"
    | "ENOBUFS";

  /** An error by its code, with what has happened. */
  constructor(code: VsockError["code"], text: string) {
    super(`${code}: ${text}`);
    this.code = code;
  }
}

/** What stands at the other end of a connection: a socket of the host, a program, another guest. */
export interface CircuitEnd {
  /** The guest has accepted the connection. */
  opened(): void;
  /**
   * Takes bytes of a stream right from guest memory. What it leaves goes into the circuit's buffer, and is got from there:
   * {@link Circuit.consumed}.
   *
   * @returns bytes taken
   */
  take(payload: Segments, position: number, length: number): number;
  /** There is something new in the buffer. */
  drain(): void;
  /**
   * Puts some of what it has for the guest into packets, at most `credit` bytes. It is asked again unless it
   * {@link Circuit.withdraw}s.
   *
   * @returns false when there are no buffers
   */
  send(receiver: Receiver, credit: number): boolean;
  /** The guest sends no more, and all that it has sent was taken. */
  ended(): void;
  /** The guest takes no more. */
  refused(): void;
  /** The connection is over. The circuit calls nothing after this. */
  over(error: VsockError | undefined): void;
}

/** What a circuit needs of its guest. */
export interface CircuitHome {
  /** Bytes that are kept of a connection. */
  readonly bufferSize: number;
  /** It has something to send. */
  ready(circuit: Circuit): void;
  /** The guest does not know it any more. */
  forget(circuit: Circuit): void;
  /** Its end has to take what the guest has left behind. */
  linger(circuit: Circuit): void;
}

/** An end for the time before there is one, and after. */
const NO_END: CircuitEnd = {
  opened: () => {},
  take: (_payload, _position, length) => length,
  drain: () => {},
  send: () => true,
  ended: () => {},
  refused: () => {},
  over: () => {},
};

/** `left`: the guest knows it no more, and its end has still to take what is in the buffer. */
type State = "requested" | "connecting" | "open" | "left" | "closed";

/** Counts of bytes are 32 bits that wrap around. */
const u32 = (count: number): number => count >>> 0;

/** One connection: state, credit, and the bytes that its end has not taken yet. */
export class Circuit implements Sender {
  /** {@link Sender.hostCid}. */
  readonly hostCid: number;
  /** {@link Sender.hostPort}. */
  readonly hostPort: number;
  /** {@link Sender.guestPort}. */
  readonly guestPort: number;
  /** {@link Sender.type}. */
  readonly type: number;
  /** {@link Sender.bufferSize}. */
  readonly bufferSize: number;
  /** {@link Sender.forwarded}. */
  forwarded = 0;
  /** What the guest has sent and the end has not taken. */
  readonly buffer: ByteQueue;
  /** The other end. */
  end: CircuitEnd = NO_END;
  /** Called once, when the guest has answered or never will. */
  settled: () => void = () => {};
  /** Kept by the guest's table: another connection with the same port of the guest. */
  next: Circuit | undefined;
  /** Kept by the guest: whether it waits for its turn to send. */
  queued = false;
  readonly #home: CircuitHome;
  #state: State;
  /** Packets without payload to be sent, as bits by `op`. */
  #pending = 0;
  /** Payload that has come, {@link forwarded} as the guest knows it. */
  #received = 0;
  #told = 0;
  /** The guest's room, what has left it, what was sent. */
  #peerBuffer = 0;
  #peerForwarded = 0;
  #sent = 0;
  /** Of {@link ShutdownFlag}: what the guest has said, and what the end has. */
  #guestDone = 0;
  #endDone = 0;
  /** Whether the end has something to send. */
  #offered = false;
  #asked = false;
  #ended = false;

  /** A connection that the guest asks for (`requested`), or that it will be asked for (`connecting`). */
  constructor(
    home: CircuitHome,
    state: "requested" | "connecting",
    type: number,
    guestPort: number,
    hostCid: number,
    hostPort: number,
  ) {
    this.#home = home;
    this.#state = state;
    this.type = type;
    this.guestPort = guestPort;
    this.hostCid = hostCid;
    this.hostPort = hostPort;
    this.bufferSize = home.bufferSize;
    this.buffer = new ByteQueue(home.bufferSize);
  }

  /** Whether messages stay apart. */
  get seqpacket(): boolean {
    return this.type === VsockType.SEQPACKET;
  }

  /** Whether it is over. */
  get closed(): boolean {
    return this.#state === "closed";
  }

  /** Whether the guest may be sent to at once, as nothing waits for it. */
  get direct(): boolean {
    return this.#state === "open" && !this.#offered && (this.#guestDone & ShutdownFlag.RECEIVE) === 0 &&
      (this.#endDone & ShutdownFlag.SEND) === 0;
  }

  /** Bytes that the guest has room for in all. */
  get peerBuffer(): number {
    return this.#peerBuffer;
  }

  /** Bytes that may be sent now. */
  get credit(): number {
    // A guest that claims to have read what it never got has no room either.
    return Math.max(0, this.#peerBuffer - u32(this.#sent - this.#peerForwarded));
  }

  /** Asks the guest for the connection. */
  request(): void {
    this.#say(VsockOp.REQUEST);
  }

  /** Accepts what the guest has asked for. */
  accept(): void {
    if (this.#state !== "requested") return;
    this.#state = "open";
    this.#say(VsockOp.RESPONSE);
  }

  /** The end has something to send. */
  offer(): void {
    if (this.closed || (this.#guestDone & ShutdownFlag.RECEIVE) !== 0) return;
    this.#offered = true;
    if (this.#state === "open" && !this.#asked) this.#home.ready(this);
  }

  /** The end has nothing to send for now. */
  withdraw(): void {
    this.#offered = false;
  }

  /** The end sends no more, or takes no more, or both; by {@link ShutdownFlag}. */
  finish(flags: number): void {
    if (this.closed || (flags & ~this.#endDone) === 0) return;
    if (this.#state === "left" && (flags & ShutdownFlag.RECEIVE) === 0) return;
    if (this.#state !== "open") return this.reset();
    this.#endDone |= flags;
    if ((flags & ShutdownFlag.SEND) !== 0) this.#offered = false;
    if ((flags & ShutdownFlag.RECEIVE) !== 0) this.#discard();
    if (!this.closed) this.#say(VsockOp.SHUTDOWN);
  }

  /** Gives up waiting for the guest to accept. */
  expire(): void {
    if (this.#state === "connecting") this.#break(new VsockError("ETIMEDOUT", "the guest does not answer"));
  }

  /** Ends it at once, with an error for the guest. */
  reset(): void {
    this.#break(undefined);
  }

  #break(error: VsockError | undefined): void {
    if (this.closed) return;
    if (this.#state === "left") {
      this.#close(error);
      return this.#home.forget(this);
    }
    // Of a connection that it was not asked for yet the guest need not know.
    if ((this.#pending & 1 << VsockOp.REQUEST) !== 0) this.#pending = 0;
    else this.#pending = 1 << VsockOp.RST;
    this.#close(error);
    if (this.#pending === 0) this.#home.forget(this);
    else this.#home.ready(this);
  }

  #close(error: VsockError | undefined): void {
    this.#state = "closed";
    this.#offered = false;
    this.buffer.clear();
    const { end } = this;
    this.end = NO_END;
    this.settled();
    end.over(error);
  }

  /** The guest is gone, and has forgotten everything. */
  lost(): void {
    this.#pending = 0;
    if (!this.closed) this.#close(new VsockError("ECONNRESET", "the guest is gone"));
  }

  #say(op: number): void {
    this.#pending |= 1 << op;
    this.#home.ready(this);
  }

  /** Throws away what the end will not take. */
  #discard(): void {
    this.forwarded = u32(this.forwarded + this.buffer.length);
    this.buffer.clear();
    this.#afterTaking();
  }

  /** The end has taken bytes from the buffer. */
  consumed(length: number): void {
    this.forwarded = u32(this.forwarded + length);
    this.buffer.drop(length);
    this.#afterTaking();
  }

  #afterTaking(): void {
    if (this.buffer.length > 0 || (this.#guestDone & ShutdownFlag.SEND) === 0) return this.#tellCredit();
    if (!this.#ended) {
      this.#ended = true;
      this.end.ended();
    }
    // Only when nothing of it is left does the guest hear that its connection is over.
    if (this.#state === "left") {
      this.#close(undefined);
      this.#home.forget(this);
    } else if (this.#guestDone === ShutdownFlag.BOTH && !this.closed) {
      this.#pending = 1 << VsockOp.RST;
      this.#close(undefined);
      this.#home.ready(this);
    }
  }

  /** Tells the guest of room, when that is worth a packet. */
  #tellCredit(): void {
    const news = u32(this.forwarded - this.#told);
    if (news === 0 || this.#state !== "open") return;
    const quarter = this.bufferSize / 4;
    // The rest of a message may wait for exactly this: its beginning leaves the buffer only together with it.
    const known = this.bufferSize - u32(this.#received - this.#told);
    if (news >= quarter || (this.seqpacket && known < Math.min(LARGE_PACKET, quarter))) {
      this.#say(VsockOp.CREDIT_UPDATE);
    }
  }

  /** {@link Sender.departed}. */
  departed(length: number): void {
    this.#sent = u32(this.#sent + length);
    this.#told = this.forwarded;
    this.#pending &= ~(1 << VsockOp.CREDIT_UPDATE);
  }

  /** Sends what there is to send. Returns false when there are no buffers; it wants another turn then. */
  transmit(receiver: Receiver): boolean {
    while (this.#pending !== 0) {
      // From the lowest: requests and answers before anything else.
      const op = 31 - Math.clz32(this.#pending & -this.#pending);
      if (!receiver.control(this, op, op === VsockOp.SHUTDOWN ? this.#endDone : 0)) return false;
      this.#pending &= ~(1 << op);
      if (this.closed) {
        this.#home.forget(this);
        return true;
      }
    }
    if (!this.#offered || this.#state !== "open") return true;
    const { credit } = this;
    if (credit > 0) return this.end.send(receiver, credit);
    if (!this.#asked) {
      this.#asked = true;
      this.#say(VsockOp.CREDIT_REQUEST);
    }
    return true;
  }

  /** Whether it has something to send. */
  get wants(): boolean {
    return this.#pending !== 0 || (this.#offered && this.#state === "open" && !this.#asked);
  }

  /** Takes what a packet says about the guest's room. */
  learn({ bufAlloc, fwdCnt }: Packet): void {
    this.#peerBuffer = bufAlloc;
    this.#peerForwarded = fwdCnt;
  }

  /** Takes a packet of the guest. */
  receive(packet: Packet, payload: Segments): void {
    if (packet.op === VsockOp.RST) return this.#wasReset();
    // It has heard of the end of it, or will: what it says meanwhile is no news.
    if (this.closed) return;
    this.learn(packet);
    if (this.#asked && this.credit > 0) {
      this.#asked = false;
      if (this.#offered) this.#home.ready(this);
    }
    if (packet.type !== this.type) return this.#violated("a packet of another type of socket");
    if (this.#state === "connecting" && packet.op === VsockOp.RESPONSE) {
      this.#state = "open";
      this.settled();
      this.end.opened();
      if (this.#offered) this.#home.ready(this);
      return;
    }
    if (this.#state !== "open") return this.#violated(`op ${packet.op} before the connection stands`);
    switch (packet.op) {
      case VsockOp.RW:
        return this.#data(packet, payload);
      case VsockOp.SHUTDOWN:
        return this.#shutdown(packet.flags);
      case VsockOp.CREDIT_UPDATE:
        return;
      case VsockOp.CREDIT_REQUEST:
        return this.#say(VsockOp.CREDIT_UPDATE);
      default:
        return this.#violated(`op ${packet.op} in a connection that stands`);
    }
  }

  #violated(what: string): void {
    this.#break(new VsockError("ECONNRESET", `the guest sent ${what}`));
  }

  #data(packet: Packet, payload: Segments): void {
    const { length } = packet;
    const kept = u32(this.#received - this.forwarded);
    if (kept + length > this.bufferSize) return this.#violated("more than it has credit for");
    if ((this.#guestDone & ShutdownFlag.SEND) !== 0) return this.#violated("data after the end");
    this.#received = u32(this.#received + length);
    if ((this.#endDone & ShutdownFlag.RECEIVE) !== 0) {
      this.forwarded = u32(this.forwarded + length);
      return this.#tellCredit();
    }
    if (this.seqpacket) return this.#message(packet, payload);
    const taken = this.buffer.length === 0 ? this.end.take(payload, VSOCK_HEADER_SIZE, length) : 0;
    // Taking may have ended it.
    if (this.closed) return;
    this.forwarded = u32(this.forwarded + taken);
    if (taken < length) {
      if ((this.#endDone & ShutdownFlag.RECEIVE) !== 0) {
        this.forwarded = u32(this.forwarded + length - taken);
      } else {
        this.buffer.append(payload, VSOCK_HEADER_SIZE + taken, length - taken);
      }
    }
    this.#tellCredit();
  }

  #message({ length, flags }: Packet, payload: Segments): void {
    this.buffer.append(payload, VSOCK_HEADER_SIZE, length);
    if ((flags & MessageFlag.END_OF_MESSAGE) === 0) return this.#tellCredit();
    if (!this.buffer.mark((flags & MessageFlag.END_OF_RECORD) !== 0)) {
      return this.#violated("more messages than are kept");
    }
    this.end.drain();
    if (!this.closed) this.#tellCredit();
  }

  #shutdown(flags: number): void {
    const news = flags & ShutdownFlag.BOTH & ~this.#guestDone;
    if (news === 0) return;
    this.#guestDone |= news;
    if ((news & ShutdownFlag.RECEIVE) !== 0) {
      this.#offered = false;
      this.end.refused();
    }
    if (this.closed) return;
    // The beginning of a message without an end will never be taken.
    if (this.seqpacket && this.buffer.messageLength < 0) this.buffer.clear();
    this.#afterTaking();
  }

  #wasReset(): void {
    const regular = (this.#guestDone & ShutdownFlag.SEND) !== 0 || this.#endDone === ShutdownFlag.BOTH;
    const refused = this.#state === "connecting";
    this.#pending = 0;
    this.#home.forget(this);
    if (this.closed) return;
    if (refused) return this.#close(new VsockError("ECONNREFUSED", "the guest refuses the connection"));
    if (!regular) return this.#close(new VsockError("ECONNRESET", "the guest has reset the connection"));
    if (this.buffer.length === 0) return this.#close(undefined);
    // It has closed its socket, and does not wait for what it sent before to be read.
    this.#state = "left";
    this.#offered = false;
    this.#home.linger(this);
  }
}
