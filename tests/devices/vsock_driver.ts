import { FrontEnd, type FrontEndOptions, SharedMemory } from "../../src/frontend/mod.ts";
import type { DriverQueue } from "../../src/frontend/driver_queue.ts";
import type { Piece } from "../../src/frontend/shared_memory.ts";
import {
  HOST_CID,
  VSOCK_HEADER_SIZE,
  vsockFeatures,
  VsockOp,
  VsockType,
} from "../../src/devices/vsock/mod.ts";
import { mask } from "../../src/protocol/features.ts";
import { eventually } from "../session/scene.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";

/** A packet, either way. */
export interface VsockPacket {
  readonly srcCid: number;
  readonly dstCid: number;
  readonly srcPort: number;
  readonly dstPort: number;
  readonly type: number;
  readonly op: number;
  readonly flags: number;
  readonly bufAlloc: number;
  readonly fwdCnt: number;
  readonly payload: Uint8Array;
}

/** The name of an op. */
export function opName(op: number): string {
  return Object.entries(VsockOp).find(([, number]) => number === op)?.[0] ?? String(op);
}

/** How a driver sets up. */
export interface VsockDriverOptions extends FrontEndOptions {
  readonly cid?: number;
  /** Receive buffers, and the bytes of each. */
  readonly buffers?: number;
  readonly bufferSize?: number;
  /** Whether the device gets the event ring too. */
  readonly events?: boolean;
}

/** Packets of the guest may be this long. */
const LARGEST = VSOCK_HEADER_SIZE + 65536;

/** A driver of a socket device, on our own front-end. Nothing here keeps state of connections: tests say each packet. */
export class VsockDriver {
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
  readonly cid: number;
  /** What has come and was not taken. */
  readonly received: VsockPacket[] = [];
  /** Ids of events. */
  readonly events: number[] = [];
  rx!: DriverQueue;
  tx!: DriverQueue;
  readonly #bufferSize: number;
  readonly #free: Piece[] = [];
  #stopped = false;

  private constructor(frontEnd: FrontEnd, memory: SharedMemory, cid: number, bufferSize: number) {
    this.frontEnd = frontEnd;
    this.memory = memory;
    this.cid = cid;
    this.#bufferSize = bufferSize;
  }

  static async connect(scope: Scope, path: string, options: VsockDriverOptions = {}): Promise<VsockDriver> {
    const { cid = 3, buffers = 16, bufferSize = 4096, events = false } = options;
    const deviceFeatures = options.deviceFeatures ?? mask(vsockFeatures.STREAM, vsockFeatures.SEQPACKET);
    const frontEnd = await FrontEnd.connect(path, { ...options, deviceFeatures });
    const memory = new SharedMemory(16 << 20);
    const driver = new VsockDriver(frontEnd, memory, cid, bufferSize);
    onEnd(scope, () => {
      driver.close();
      memory.close();
    });
    await frontEnd.shareMemory(memory);
    await driver.start();
    if (events) {
      const queue = await frontEnd.startQueue(2, memory, { size: 8 });
      const piece = memory.allocate(8);
      void queue.request([], [{ guestAddress: piece.guestAddress, length: 8 }]).then((written) => {
        if (written === 4) driver.events.push(piece.bytes[0]);
      }, () => {});
    }
    driver.offer(buffers);
    await frontEnd.driverOk();
    return driver;
  }

  /** Starts both rings, from their beginning. */
  async start(): Promise<void> {
    this.rx = await this.frontEnd.startQueue(0, this.memory, { size: 64 });
    this.tx = await this.frontEnd.startQueue(1, this.memory, { size: 64 });
  }

  /** Puts up receive buffers; each is put up again when it comes back, unless said otherwise. */
  offer(count: number, again = true): void {
    for (let i = 0; i < count; i++) void this.#receive(this.memory.allocate(this.#bufferSize), again);
  }

  async #receive(piece: Piece, again: boolean): Promise<void> {
    do {
      let written: number;
      try {
        written = await this.rx.request([], [{
          guestAddress: piece.guestAddress,
          length: piece.bytes.length,
        }]);
      } catch {
        return; // The ring is closed.
      }
      if (this.#stopped) return;
      const bytes = piece.bytes.slice(0, written);
      const view = new DataView(bytes.buffer);
      this.received.push({
        srcCid: Number(view.getBigUint64(0, true)),
        dstCid: Number(view.getBigUint64(8, true)),
        srcPort: view.getUint32(16, true),
        dstPort: view.getUint32(20, true),
        type: view.getUint16(28, true),
        op: view.getUint16(30, true),
        flags: view.getUint32(32, true),
        bufAlloc: view.getUint32(36, true),
        fwdCnt: view.getUint32(40, true),
        payload: bytes.subarray(44, 44 + view.getUint32(24, true)),
      });
    } while (again);
  }

  /** Sends raw bytes as a packet, in pieces that end at `cuts`. */
  async sendBytes(bytes: Uint8Array, cuts: readonly number[] = []): Promise<void> {
    const piece = this.#free.pop() ?? this.memory.allocate(LARGEST);
    piece.bytes.set(bytes);
    const ends = [...cuts.filter((cut) => cut > 0 && cut < bytes.length), bytes.length];
    let at = 0;
    const buffers = ends.map((end) => {
      const buffer = { guestAddress: piece.guestAddress + at, length: end - at };
      at = end;
      return buffer;
    });
    await this.tx.request(buffers, []);
    this.#free.push(piece);
  }

  /** Sends a packet; what is not said is as in a stream to the host with much room. */
  send(packet: Partial<VsockPacket> & { op: number }, cuts?: readonly number[]): Promise<void> {
    const { payload = new Uint8Array(0) } = packet;
    const bytes = new Uint8Array(VSOCK_HEADER_SIZE + payload.length);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, BigInt(packet.srcCid ?? this.cid), true);
    view.setBigUint64(8, BigInt(packet.dstCid ?? HOST_CID), true);
    view.setUint32(16, packet.srcPort ?? 1000, true);
    view.setUint32(20, packet.dstPort ?? 1234, true);
    view.setUint32(24, payload.length, true);
    view.setUint16(28, packet.type ?? VsockType.STREAM, true);
    view.setUint16(30, packet.op, true);
    view.setUint32(32, packet.flags ?? 0, true);
    view.setUint32(36, packet.bufAlloc ?? 1 << 20, true);
    view.setUint32(40, packet.fwdCnt ?? 0, true);
    bytes.set(payload, VSOCK_HEADER_SIZE);
    return this.sendBytes(bytes, cuts);
  }

  /** Waits for packets and takes them. */
  async take(count: number): Promise<VsockPacket[]> {
    await eventually(
      `${count} packets; got ${this.received.map(({ op }) => opName(op))}`,
      () => this.received.length >= count,
    );
    return this.received.splice(0, count);
  }

  /** Waits for one packet, which must be of this kind. */
  async expect(op: number): Promise<VsockPacket> {
    const [packet] = await this.take(1);
    if (packet.op !== op) throw new Error(`expected ${opName(op)}, got ${opName(packet.op)}`);
    return packet;
  }

  close(): void {
    this.#stopped = true;
    this.frontEnd.close();
  }
}
