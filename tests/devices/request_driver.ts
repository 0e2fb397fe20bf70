import type { DriverQueue } from "../../src/frontend/driver_queue.ts";
import type { Buffer } from "../../src/frontend/driver_ring.ts";
import { FrontEnd, type FrontEndOptions, SharedMemory } from "../../src/frontend/mod.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";

/** What came back for a request. */
export interface Returned {
  /** Bytes that the device says it wrote. */
  readonly written: number;
  /** All bytes that it could write to: those that it did not are 0xee. */
  readonly bytes: Uint8Array;
}

/** What the driver fills buffers with that are the device's to write. */
export const UNTOUCHED = 0xee;

/** A driver that sends bytes and takes bytes, on our own front-end. */
export class RequestDriver {
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
  readonly queues: DriverQueue[] = [];

  private constructor(frontEnd: FrontEnd, memory: SharedMemory) {
    this.frontEnd = frontEnd;
    this.memory = memory;
  }

  /** Connects and starts a number of rings. */
  static async connect(
    scope: Scope,
    path: string,
    options: FrontEndOptions & { queues?: number; size?: number } = {},
  ): Promise<RequestDriver> {
    const { queues = 1, size = 64, deviceFeatures = 0xff_ffffn } = options;
    const frontEnd = await FrontEnd.connect(path, { ...options, deviceFeatures });
    const memory = new SharedMemory(16 << 20);
    onEnd(scope, () => {
      frontEnd.close();
      memory.close();
    });
    const driver = new RequestDriver(frontEnd, memory);
    await frontEnd.shareMemory(memory);
    for (let i = 0; i < queues; i++) driver.queues.push(await frontEnd.startQueue(i, memory, { size }));
    await frontEnd.driverOk();
    return driver;
  }

  #buffer(bytes: Uint8Array): { buffer: Buffer; bytes: Uint8Array } {
    const piece = this.memory.allocate(Math.max(1, bytes.length));
    piece.bytes.set(bytes);
    return {
      buffer: { guestAddress: piece.guestAddress, length: bytes.length },
      bytes: piece.bytes.subarray(0, bytes.length),
    };
  }

  /** Sends a request: pieces to read, then room of the given sizes. Pieces of no bytes are left out. */
  async request(
    readable: readonly Uint8Array[],
    room: readonly number[],
    queue = 0,
  ): Promise<Returned> {
    const sent = readable.filter(({ length }) => length > 0).map((bytes) => this.#buffer(bytes));
    const targets = room.filter((length) => length > 0).map((length) =>
      this.#buffer(new Uint8Array(length).fill(UNTOUCHED))
    );
    const written = await this.queues[queue].request(
      sent.map(({ buffer }) => buffer),
      targets.map(({ buffer }) => buffer),
    );
    const bytes = new Uint8Array(targets.reduce((sum, { bytes }) => sum + bytes.length, 0));
    let at = 0;
    for (const target of targets) {
      bytes.set(target.bytes, at);
      at += target.bytes.length;
    }
    return { written, bytes };
  }
}

/** Numbers in the order and of the sizes in bytes that are given, little-endian. */
export function packed(
  ...fields: readonly (readonly [bytes: 1 | 2 | 4 | 8, value: number | bigint])[]
): Uint8Array {
  const target = new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0));
  const view = new DataView(target.buffer);
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 1) view.setUint8(at, Number(value));
    else if (size === 2) view.setUint16(at, Number(value), true);
    else if (size === 4) view.setUint32(at, Number(value), true);
    else view.setBigUint64(at, BigInt(value), true);
    at += size;
  }
  return target;
}
