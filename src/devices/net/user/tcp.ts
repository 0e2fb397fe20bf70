/**
 * TCP with a guest that is one ring away (RFC 9293).
 *
 * The way is short and keeps the order, so this is the simplest TCP that is right: what comes out of order is left to be sent
 * again, what is not acknowledged is sent again from the first byte on, and there is no congestion to control.
 *
 * @module
 */

import { get16, get32, put16, put32 } from "./packet.ts";

/** Bits of the flags. */
export const TcpFlag = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16 } as const;

/** Bytes of a TCP header without options. */
export const TCP = 20;

/** Bytes that wait here for whoever reads, and for the guest. */
const WINDOW = 1 << 20;
const SEND_ROOM = 1 << 18;
/** What the guest's window scale is answered with: enough for {@link WINDOW}. */
const SCALE = 5;
/** Bytes of a segment when the guest does not say, and the least that it may say. */
const DEFAULT_MSS = 536;
const LEAST_MSS = 64;
/** How long to wait for an acknowledgement, ms: at first, and at most. And how often. */
const RETRY_FIRST = 250;
const RETRY_MOST = 8000;
const RETRIES = 8;
const DUPLICATES = 3;
/** How long a connection that is closed on both sides is remembered, ms. */
const LINGER = 1000;

const OptionKind = { END: 0, NOP: 1, MSS: 2, SCALE: 3 } as const;

/** A segment of the guest, in a copy of its frame. */
export interface Segment {
  readonly flags: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly window: number;
  readonly data: Uint8Array;
  /** From options of a SYN: 0 and -1 without. */
  readonly mss: number;
  readonly scale: number;
}

/** Takes a TCP header apart. Returns `undefined` for what is none. */
export function parseSegment(frame: Uint8Array, start: number, end: number): Segment | undefined {
  if (end - start < TCP) return undefined;
  const payload = start + (frame[start + 12] >>> 4) * 4;
  if (payload < start + TCP || payload > end) return undefined;
  const flags = frame[start + 13];
  let mss = 0;
  let scale = -1;
  if ((flags & TcpFlag.SYN) !== 0) {
    for (let at = start + TCP; at < payload && frame[at] !== OptionKind.END;) {
      if (frame[at] === OptionKind.NOP) {
        at++;
        continue;
      }
      const length = frame[at + 1];
      if (at + 1 >= payload || length < 2 || at + length > payload) break;
      if (frame[at] === OptionKind.MSS && length === 4) mss = get16(frame, at + 2);
      if (frame[at] === OptionKind.SCALE && length === 3) scale = Math.min(14, frame[at + 2]);
      at += length;
    }
  }
  return {
    flags,
    sequence: get32(frame, start + 4),
    acknowledgement: get32(frame, start + 8),
    window: get16(frame, start + 14),
    data: frame.subarray(payload, end),
    mss,
    scale,
  };
}

/** What a connection needs of the network around it. */
export interface TcpLink {
  /** The largest segment that fits into a frame, bytes of payload. */
  readonly mss: number;
  /** Whether a frame finds room; if not, {@link TcpConnection.pump} is called when there may be. */
  hasRoom(connection: TcpConnection): boolean;
  /** Where to put `length` bytes of header and payload; {@link transmit} sends them. */
  readonly room: Uint8Array<ArrayBuffer>;
  /** Sends what is in {@link room}, ports and checksum to be added. */
  transmit(connection: TcpConnection, length: number): void;
  /** The connection is over. */
  forget(connection: TcpConnection): void;
}

/** Distance from one sequence number to another, which may be negative. */
function distance(from: number, to: number): number {
  return (to - from) | 0;
}

/** Both directions of a connection that was accepted. */
export interface TcpStreams {
  /** What the guest sends. It ends when the guest ends it, and fails when the guest breaks it off. */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** To the guest. */
  readonly writable: WritableStream<Uint8Array>;
}

/** One connection, as the side that the guest has called. */
export class TcpConnection {
  /** The guest's port. */
  readonly guestPort: number;
  /** The address and port that it called. */
  readonly address: number;
  readonly port: number;
  readonly #link: TcpLink;
  #state: "pending" | "open" | "closed" = "pending";
  #streams: TcpStreams | undefined;
  /** Whether the guest has answered our SYN: until then its sequence number counts as one unacknowledged byte. */
  #established = false;
  // Receiving.
  #next: number;
  #reader: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>> | undefined;
  #readerOpen = true;
  #advertised = 0;
  #ackDue = false;
  /** Whether the guest has sent all. */
  #peerDone = false;
  // Sending: a ring of bytes, from the first that is not acknowledged on.
  #buffer: Uint8Array<ArrayBuffer> | undefined;
  #first = 0;
  #length = 0;
  /** Sequence number of that byte; of the next to be sent; of what was ever sent. */
  #unacknowledged: number;
  #sendNext: number;
  #sendMost: number;
  #window: number;
  readonly #scale: number;
  readonly #mss: number;
  #writer: WritableStreamDefaultController | undefined;
  #roomWanted: (() => void) | undefined;
  #finQueued = false;
  #finSent = false;
  #duplicates = 0;
  #tries = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** For a SYN of the guest. Nothing is answered before {@link accept} or {@link refuse}. */
  constructor(link: TcpLink, guestPort: number, address: number, port: number, syn: Segment) {
    this.#link = link;
    this.guestPort = guestPort;
    this.address = address;
    this.port = port;
    this.#next = (syn.sequence + 1) >>> 0;
    this.#mss = Math.min(link.mss, Math.max(LEAST_MSS, syn.mss || DEFAULT_MSS));
    this.#scale = syn.scale;
    this.#window = syn.window;
    const [initial] = crypto.getRandomValues(new Uint32Array(1));
    this.#unacknowledged = this.#sendNext = this.#sendMost = initial;
  }

  /** Whether the guest still waits for an answer to its call. */
  get pending(): boolean {
    return this.#state === "pending";
  }

  /** Accepts the call. */
  accept(): TcpStreams {
    if (this.#streams !== undefined) return this.#streams;
    if (this.#state !== "pending") throw new TypeError("the connection is over");
    this.#state = "open";
    const readable = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => {
        this.#reader = controller;
      },
      pull: () => this.#widen(),
      cancel: () => {
        // Nobody reads what comes from now on; it is taken all the same, or the guest would wait for ever.
        this.#readerOpen = false;
        this.#widen();
      },
    }, new ByteLengthQueuingStrategy({ highWaterMark: WINDOW }));
    const writable = new WritableStream<Uint8Array>({
      start: (controller) => {
        this.#writer = controller;
      },
      write: (chunk) => this.#write(chunk),
      close: () => {
        this.#finQueued = true;
        this.pump();
      },
      abort: () => this.abort(),
    });
    this.#sendSyn();
    return this.#streams = { readable, writable };
  }

  /** Refuses the call, as a machine does on whose port nobody listens. */
  refuse(): void {
    if (this.#state === "pending") this.abort();
  }

  /** Breaks the connection off. */
  abort(): void {
    if (this.#state === "closed") return;
    this.#send(TcpFlag.RST | TcpFlag.ACK, this.#sendNext, 0, 0);
    this.#end(new Error("the connection was broken off"));
  }

  /** The guest has gone: nothing more is sent. */
  lose(): void {
    this.#end(new Error("the guest has gone"));
  }

  #end(error?: Error): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    clearTimeout(this.#timer);
    if (this.#readerOpen && !this.#peerDone) this.#reader?.error(error);
    this.#readerOpen = false;
    if (error !== undefined) this.#writer?.error(error);
    this.#roomWanted?.();
    this.#roomWanted = undefined;
    this.#buffer = undefined;
    this.#link.forget(this);
  }

  #sendSyn(): void {
    const { room } = this.#link;
    const scaled = this.#scale >= 0;
    room[TCP] = OptionKind.MSS;
    room[TCP + 1] = 4;
    put16(room, TCP + 2, this.#link.mss);
    room.set(scaled ? [OptionKind.NOP, OptionKind.SCALE, 3, SCALE] : [0, 0, 0, 0], TCP + 4);
    this.#send(TcpFlag.SYN | TcpFlag.ACK, this.#unacknowledged, 8, 0);
    this.#sendNext = this.#sendMost = (this.#unacknowledged + 1) >>> 0;
    this.#arm();
  }

  #receiveWindow(): number {
    if (!this.#readerOpen || this.#reader === undefined) return WINDOW;
    return Math.max(0, this.#reader.desiredSize ?? 0);
  }

  /** Sends a segment: header, options, `data` bytes that stand behind them. */
  #send(flags: number, sequence: number, options: number, data: number): void {
    const { room } = this.#link;
    put32(room, 4, sequence);
    put32(room, 8, this.#next);
    room[12] = (TCP + options) / 4 << 4;
    room[13] = flags;
    const shift = this.#scale >= 0 && (flags & TcpFlag.SYN) === 0 ? SCALE : 0;
    const window = Math.min(0xffff, this.#receiveWindow() >>> shift);
    this.#advertised = window << shift;
    put16(room, 14, window);
    put16(room, 18, 0);
    this.#ackDue = false;
    this.#link.transmit(this, TCP + options + data);
  }

  /** Whoever reads has taken something: tells the guest, when that is news. */
  #widen(): void {
    if (this.#state !== "open" || !this.#established || this.#peerDone) return;
    // Without a scale there is no more to tell than 16 bits can.
    const most = this.#scale >= 0 ? WINDOW : 0xffff;
    if (Math.min(most, this.#receiveWindow()) - this.#advertised < most / 4) return;
    this.#send(TcpFlag.ACK, this.#sendNext, 0, 0);
  }

  async #write(chunk: Uint8Array): Promise<void> {
    let source = chunk;
    while (source.length > 0) {
      if (this.#state !== "open") throw new Error("the connection is over");
      const buffer = this.#buffer ??= new Uint8Array(SEND_ROOM);
      const size = Math.min(source.length, SEND_ROOM - this.#length);
      const at = (this.#first + this.#length) % SEND_ROOM;
      const whole = Math.min(size, SEND_ROOM - at);
      buffer.set(source.subarray(0, whole), at);
      buffer.set(source.subarray(whole, size), 0);
      this.#length += size;
      source = source.subarray(size);
      this.pump();
      if (source.length > 0) await new Promise<void>((resolve) => this.#roomWanted = resolve);
    }
  }

  /** Sends what can be sent. */
  pump(): void {
    if (this.#state !== "open" || !this.#established) return;
    for (;;) {
      const sent = distance(this.#unacknowledged, this.#sendNext);
      const left = this.#length - sent;
      if (left <= 0) break;
      const size = Math.min(this.#mss, left, this.#window - sent);
      if (size <= 0) break;
      if (!this.#link.hasRoom(this)) return;
      this.#sendData(sent, size, size === left);
      this.#sendNext = (this.#sendNext + size) >>> 0;
    }
    const sent = distance(this.#unacknowledged, this.#sendNext);
    if (this.#finQueued && !this.#finSent && sent === this.#length) {
      if (!this.#link.hasRoom(this)) return;
      this.#finSent = true;
      this.#send(TcpFlag.FIN | TcpFlag.ACK, this.#sendNext, 0, 0);
      this.#sendNext = (this.#sendNext + 1) >>> 0;
    }
    if (distance(this.#sendMost, this.#sendNext) > 0) this.#sendMost = this.#sendNext;
    if (this.#unacknowledged !== this.#sendMost || this.#length > 0) this.#arm();
  }

  #sendData(offset: number, size: number, last: boolean): void {
    const buffer = this.#buffer as Uint8Array;
    const { room } = this.#link;
    const at = (this.#first + offset) % SEND_ROOM;
    const whole = Math.min(size, SEND_ROOM - at);
    room.set(buffer.subarray(at, at + whole), TCP);
    room.set(buffer.subarray(0, size - whole), TCP + whole);
    this.#send(
      TcpFlag.ACK | (last ? TcpFlag.PSH : 0),
      (this.#unacknowledged + offset) >>> 0,
      0,
      size,
    );
  }

  #arm(): void {
    this.#timer ??= setTimeout(
      () => this.#timeout(),
      Math.min(RETRY_MOST, RETRY_FIRST * 2 ** this.#tries),
    );
  }

  /** Nothing was acknowledged for a while: sends again, or asks whether the guest's window is still closed. */
  #timeout(): void {
    this.#timer = undefined;
    if (this.#state !== "open") return;
    if (this.#established && this.#unacknowledged === this.#sendMost && this.#length === 0) return;
    if (++this.#tries > RETRIES) return this.abort();
    if (!this.#established) return this.#sendSyn();
    this.#duplicates = 0;
    this.#again();
    this.#arm();
  }

  #again(): void {
    this.#sendNext = this.#unacknowledged;
    this.#finSent = false;
    if (this.#window === 0 && this.#length > 0) {
      // One byte more than the guest wants: its answer has the window.
      this.#sendData(0, 1, false);
      this.#sendNext = (this.#unacknowledged + 1) >>> 0;
      if (distance(this.#sendMost, this.#sendNext) > 0) this.#sendMost = this.#sendNext;
      return;
    }
    this.pump();
  }

  /** Takes a segment of the guest. */
  segment(segment: Segment): void {
    const { flags, sequence } = segment;
    if ((flags & TcpFlag.RST) !== 0) {
      // Only one that is exactly in order: others may be old.
      if (sequence === this.#next) this.#end(new Error("the guest has broken the connection off"));
      return;
    }
    if (this.#state !== "open") return;
    if ((flags & TcpFlag.SYN) !== 0) {
      // The answer to its call was lost.
      if (!this.#established) this.#sendSyn();
      else this.#ackDue = true;
      return;
    }
    if ((flags & TcpFlag.ACK) === 0) return;
    this.#acknowledged(segment);
    this.#data(segment);
    if (this.#peerDone && this.#finSent && this.#unacknowledged === this.#sendMost && this.#length === 0) {
      if (this.#ackDue) this.acknowledge();
      this.#linger();
    }
  }

  /** Both sides are done. The guest's last segment may come again. */
  #linger(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end(), LINGER);
  }

  #acknowledged({ acknowledgement, window, data, flags }: Segment): void {
    const gained = distance(this.#unacknowledged, acknowledgement);
    if (gained < 0 || distance(acknowledgement, this.#sendMost) < 0) return;
    const before = this.#window;
    this.#window = window * 2 ** Math.max(0, this.#scale);
    if (gained === 0) {
      // It answers, but cannot take more: that may last.
      if (this.#window === 0) this.#tries = Math.min(this.#tries, RETRIES / 2);
      const outstanding = this.#unacknowledged !== this.#sendMost;
      const news = data.length > 0 || (flags & TcpFlag.FIN) !== 0 || this.#window !== before;
      if (outstanding && !news && ++this.#duplicates === DUPLICATES) this.#again();
      else if (this.#window > before) this.pump();
      return;
    }
    this.#duplicates = 0;
    this.#tries = 0;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    let bytes = gained;
    if (!this.#established) {
      this.#established = true;
      bytes--;
    }
    // The last number may be that of our FIN.
    bytes = Math.min(bytes, this.#length);
    this.#first = (this.#first + bytes) % SEND_ROOM;
    this.#length -= bytes;
    this.#unacknowledged = acknowledgement;
    if (distance(this.#sendNext, acknowledgement) > 0) {
      this.#sendNext = acknowledgement;
      if (this.#length === 0 && this.#finQueued && acknowledgement === this.#sendMost) this.#finSent = true;
    }
    if (this.#length < SEND_ROOM / 2) {
      this.#roomWanted?.();
      this.#roomWanted = undefined;
    }
    this.pump();
  }

  #data({ sequence, data, flags }: Segment): void {
    const fin = (flags & TcpFlag.FIN) !== 0;
    if (data.length === 0 && !fin) return;
    this.#ackDue = true;
    const old = distance(sequence, this.#next);
    // Later than what is next, or all of it old.
    if (old < 0 || old > data.length || this.#peerDone) return;
    const fresh = data.subarray(old);
    if (fresh.length > 0) {
      const room = this.#receiveWindow();
      const taken = fresh.subarray(0, room);
      this.#next = (this.#next + taken.length) >>> 0;
      if (this.#readerOpen && taken.length > 0) this.#reader?.enqueue(taken.slice());
      if (taken.length < fresh.length) return;
    }
    if (!fin) return;
    this.#next = (this.#next + 1) >>> 0;
    this.#peerDone = true;
    if (this.#readerOpen) this.#reader?.close();
    this.#readerOpen = false;
  }

  /** Acknowledges what came, at the end of a burst. */
  acknowledge(): void {
    if (this.#ackDue && this.#state === "open") this.#send(TcpFlag.ACK, this.#sendNext, 0, 0);
  }
}
