import { FrontEnd, type FrontEndOptions, SharedMemory } from "../../src/frontend/mod.ts";
import type { DriverQueue } from "../../src/frontend/driver_queue.ts";
import type { Buffer } from "../../src/frontend/driver_ring.ts";
import type { Piece } from "../../src/frontend/shared_memory.ts";
import { has, mask, ringFeatures } from "../../src/protocol/features.ts";
import { netFeatures } from "../../src/devices/net/mod.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { eventually } from "../session/scene.ts";

/** Everything that the device can offer. */
export const ALL = mask(...Object.values(netFeatures));
/** RING_PACKED. */
export const PACKED = 1n << 34n;

/** What stands before a frame. */
export interface NetHeader {
  readonly flags: number;
  readonly gsoType: number;
  readonly hdrLen: number;
  readonly gsoSize: number;
  readonly csumStart: number;
  readonly csumOffset: number;
  readonly numBuffers: number;
}

/** A frame that came from the device. */
export interface Received {
  readonly header: NetHeader;
  readonly frame: Uint8Array;
  /** Bytes of each buffer that it came in, header included. */
  readonly buffers: readonly number[];
}

/** How a driver sets up. */
export interface NetDriverOptions extends FrontEndOptions {
  /** Features of the device to accept; all that are offered by default. */
  readonly features?: bigint;
  /** Queue pairs to start. */
  readonly pairs?: number;
  /** Receive buffers of each pair, and the bytes of each. */
  readonly buffers?: number;
  readonly bufferSize?: number;
  /** Entries of each ring. */
  readonly size?: number;
}

/** A driver of a network card, on our own front-end. */
export class NetDriver {
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
  readonly received: Received[] = [];
  readonly rx: DriverQueue[] = [];
  readonly tx: DriverQueue[] = [];
  readonly #bufferSize: number;
  #parts: { bytes: Uint8Array; written: number }[] = [];
  #stopped = false;

  private constructor(frontEnd: FrontEnd, memory: SharedMemory, bufferSize: number) {
    this.frontEnd = frontEnd;
    this.memory = memory;
    this.#bufferSize = bufferSize;
  }

  static async connect(scope: Scope, path: string, options: NetDriverOptions = {}): Promise<NetDriver> {
    const { features = ALL, pairs = 1, buffers = 16, bufferSize = 2048, size = 64 } = options;
    const frontEnd = await FrontEnd.connect(path, { ...options, deviceFeatures: features });
    const memory = new SharedMemory(8 << 20);
    onEnd(scope, () => {
      driver.close();
      memory.close();
    });
    const driver = new NetDriver(frontEnd, memory, bufferSize);
    await frontEnd.shareMemory(memory);
    for (let pair = 0; pair < pairs; pair++) {
      driver.rx.push(await frontEnd.startQueue(2 * pair, memory, { size }));
      driver.tx.push(await frontEnd.startQueue(2 * pair + 1, memory, { size }));
      driver.offer(buffers, pair);
    }
    await frontEnd.driverOk();
    return driver;
  }

  /** Bytes of the header. */
  get headerSize(): number {
    const { features } = this.frontEnd;
    return has(features, ringFeatures.VERSION_1) || has(features, netFeatures.MRG_RXBUF) ? 12 : 10;
  }

  /** Puts up receive buffers; each is put up again when it comes back. */
  offer(count: number, pair = 0, again = true): void {
    for (let i = 0; i < count; i++) void this.#receive(this.memory.allocate(this.#bufferSize), pair, again);
  }

  async #receive(piece: Piece, pair: number, again: boolean): Promise<void> {
    const buffer: Buffer = { guestAddress: piece.guestAddress, length: piece.bytes.length };
    do {
      let written: number;
      try {
        written = await this.rx[pair].request([], [buffer]);
      } catch {
        return; // The ring is closed.
      }
      if (this.#stopped) return;
      this.#parts.push({ bytes: piece.bytes.slice(0, written), written });
      this.#assemble();
    } while (again);
  }

  #assemble(): void {
    const [first] = this.#parts;
    if (first.written === 0) {
      this.#parts.shift();
      return;
    }
    const size = this.headerSize;
    const view = new DataView(first.bytes.buffer);
    const count = size === 12 ? view.getUint16(10, true) : 1;
    if (this.#parts.length < count) return;
    const parts = this.#parts.splice(0, count);
    const header: NetHeader = {
      flags: view.getUint8(0),
      gsoType: view.getUint8(1),
      hdrLen: view.getUint16(2, true),
      gsoSize: view.getUint16(4, true),
      csumStart: view.getUint16(6, true),
      csumOffset: view.getUint16(8, true),
      numBuffers: count,
    };
    const whole = new Uint8Array(parts.reduce((sum, { bytes }) => sum + bytes.length, 0));
    let at = 0;
    for (const { bytes } of parts) {
      whole.set(bytes, at);
      at += bytes.length;
    }
    this.received.push({ header, frame: whole.subarray(size), buffers: parts.map(({ written }) => written) });
  }

  /** Sends a frame; it is the device's no more when this resolves. */
  async send(
    frame: Uint8Array,
    options: { header?: Partial<NetHeader>; pair?: number; cuts?: readonly number[] } = {},
  ): Promise<void> {
    const { header = {}, pair = 0, cuts = [] } = options;
    const piece = this.memory.allocate(this.headerSize + frame.length);
    const view = new DataView(piece.bytes.buffer, piece.bytes.byteOffset);
    view.setUint8(0, header.flags ?? 0);
    view.setUint8(1, header.gsoType ?? 0);
    view.setUint16(2, header.hdrLen ?? 0, true);
    view.setUint16(4, header.gsoSize ?? 0, true);
    view.setUint16(6, header.csumStart ?? 0, true);
    view.setUint16(8, header.csumOffset ?? 0, true);
    if (this.headerSize === 12) view.setUint16(10, 0, true);
    piece.bytes.set(frame, this.headerSize);
    const ends = [...cuts.filter((cut) => cut > 0 && cut < piece.bytes.length), piece.bytes.length];
    let at = 0;
    const buffers = ends.map((end) => {
      const buffer = { guestAddress: piece.guestAddress + at, length: end - at };
      at = end;
      return buffer;
    });
    await this.tx[pair].request(buffers, []);
  }

  /** Waits for a number of frames, and takes them. */
  async take(count: number): Promise<Received[]> {
    await eventually(`${count} frames; got ${this.received.length}`, () => this.received.length >= count);
    return this.received.splice(0, count);
  }

  close(): void {
    this.#stopped = true;
    this.frontEnd.close();
  }
}

/** An Ethernet frame of a type that nobody uses (IEEE 802, local experimental). */
export function frameOf(to: string, from: string, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(14 + payload.length);
  frame.set(mac(to), 0);
  frame.set(mac(from), 6);
  frame.set([0x88, 0xb5], 12);
  frame.set(payload, 14);
  return frame;
}

/** The bytes of an address. */
export function mac(text: string): Uint8Array {
  return Uint8Array.from(text.split(":"), (byte) => parseInt(byte, 16));
}
