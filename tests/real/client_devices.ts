import { setTimeout as sleep } from "node:timers/promises";
import type { Buffer, DriverQueue, Piece, SharedMemory } from "../../src/frontend/mod.ts";

/** Room that is used again and again. */
class Rooms {
  readonly #free: Piece[];
  readonly #waiting: ((room: Piece) => void)[] = [];

  constructor(memory: SharedMemory, count: number, size: number) {
    this.#free = Array.from({ length: count }, () => memory.allocate(size, 64));
  }

  async take(): Promise<Piece> {
    return this.#free.pop() ?? await new Promise((resolve) => this.#waiting.push(resolve));
  }

  give(room: Piece): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(room);
    else next(room);
  }
}

/** What a guest's driver does with two rings: one for what it gets, one for what it sends. */
export class Packets {
  readonly received: Uint8Array[] = [];
  readonly #rooms: Rooms;
  readonly #transmit: DriverQueue;

  /** Keeps room for `count` packets of `size` bytes at the device. */
  constructor(
    memory: SharedMemory,
    receive: DriverQueue,
    transmit: DriverQueue,
    count: number,
    size: number,
  ) {
    this.#transmit = transmit;
    this.#rooms = new Rooms(memory, count, size);
    for (let i = 0; i < count; i++) void this.#receive(receive, memory.allocate(size, 64));
  }

  async #receive(queue: DriverQueue, { guestAddress, bytes }: Piece): Promise<void> {
    try {
      for (;;) {
        const written = await queue.request([], [{ guestAddress, length: bytes.length }]);
        this.received.push(bytes.slice(0, written));
      }
    } catch {
      // The front-end has ended.
    }
  }

  /** Sends a packet; resolves when the device has it. */
  async send(packet: Uint8Array): Promise<void> {
    const room = await this.#rooms.take();
    room.bytes.set(packet);
    await this.#transmit.request([{ guestAddress: room.guestAddress, length: packet.length }], []);
    this.#rooms.give(room);
  }

  /** Waits for a packet that fits, and takes it out. */
  async until(what: string, fits: (packet: Uint8Array) => boolean): Promise<Uint8Array> {
    for (const deadline = performance.now() + 20_000;; await sleep(2)) {
      const at = this.received.findIndex(fits);
      if (at >= 0) return this.received.splice(at, 1)[0];
      if (performance.now() > deadline) throw new Error(`in vain: ${what}; came: ${this.received.length}`);
    }
  }
}

/** Asks a FUSE server over a ring of virtio-fs. */
export class Fuse {
  readonly #queue: DriverQueue;
  readonly #request: Piece;
  readonly #answer: Piece;
  #unique = 1n;

  constructor(memory: SharedMemory, queue: DriverQueue) {
    this.#queue = queue;
    this.#request = memory.allocate(4096, 64);
    this.#answer = memory.allocate(65536, 64);
  }

  /** One request. Returns what comes after the header of the answer; throws for an error number. */
  async call(opcode: number, node: bigint, body: Uint8Array): Promise<DataView> {
    const view = new DataView(this.#request.bytes.buffer, this.#request.bytes.byteOffset);
    const length = 40 + body.length;
    this.#request.bytes.fill(0, 0, 40);
    view.setUint32(0, length, true);
    view.setUint32(4, opcode, true);
    view.setBigUint64(8, this.#unique++, true);
    view.setBigUint64(16, node, true);
    this.#request.bytes.set(body, 40);
    const at = ({ guestAddress }: Piece, offset: number, length: number): Buffer => ({
      guestAddress: guestAddress + offset,
      length,
    });
    await this.#queue.request(
      [at(this.#request, 0, 40), at(this.#request, 40, body.length)],
      [at(this.#answer, 0, 16), at(this.#answer, 16, 65520)],
    );
    const header = new DataView(this.#answer.bytes.slice(0, 16).buffer);
    const error = header.getInt32(4, true);
    if (error !== 0) throw new Error(`opcode ${opcode}: error ${-error}`);
    return new DataView(this.#answer.bytes.slice(16, header.getUint32(0, true)).buffer);
  }
}

/** Bytes of little-endian numbers: `[value, bytes]` each. */
export function packed(...fields: readonly (readonly [number | bigint, 1 | 2 | 4 | 8])[]): Uint8Array {
  const bytes = new Uint8Array(fields.reduce((sum, [, size]) => sum + size, 0));
  let at = 0;
  for (const [value, size] of fields) {
    for (let i = 0n; i < size; i++) bytes[at++] = Number(BigInt(value) >> 8n * i & 0xffn);
  }
  return bytes;
}
