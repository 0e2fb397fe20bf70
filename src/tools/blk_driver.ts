/**
 * A driver for disks: what a guest's block layer does, on our own front-end.
 *
 * @module
 */

import {
  type BlkConfig,
  blkConfig,
  blkFeatures,
  BlkRequest,
  BlkStatus,
  HEADER_SIZE,
  ID_SIZE,
  RANGE_SIZE,
  RANGE_UNMAP,
} from "../devices/blk/layout.ts";
import { SECTOR } from "../devices/storage/storage.ts";
import type { DriverQueue } from "../frontend/driver_queue.ts";
import type { Buffer } from "../frontend/driver_ring.ts";
import { FrontEnd } from "../frontend/front_end.ts";
import type { FrontEndOptions } from "../frontend/options.ts";
import { type Piece, SharedMemory } from "../frontend/shared_memory.ts";
import { mask } from "../protocol/features.ts";

const { RO, FLUSH, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES, BLK_SIZE, SEG_MAX } = blkFeatures;

/** What this driver knows of a disk, and takes unless {@link FrontEndOptions.deviceFeatures} says otherwise. */
export const DRIVER_FEATURES: bigint = mask(
  ...[RO, FLUSH, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES, BLK_SIZE, SEG_MAX],
);

/** How a disk is driven. */
export interface BlkDriverOptions extends FrontEndOptions {
  /** Queues to use, in turn; 1 by default. */
  readonly numQueues?: number;
  /** Entries of each queue; 128 by default. */
  readonly queueSize?: number;
  /** Requests in flight at the most; 32 by default. */
  readonly depth?: number;
  /** Bytes of one request at the most; larger reads and writes are split. 64 KiB by default. */
  readonly maxTransfer?: number;
  /** Whether requests go into tables of their own (INDIRECT_DESC). */
  readonly indirect?: boolean;
  /** How long to look for the answer before waiting for the doorbell, µs; 0 by default. Blocks the event loop. */
  readonly spinUs?: number;
}

/** A request that the disk has refused. */
export class BlkError extends Error {
  /** The error's class name. */
  override readonly name = "BlkError";
  /** {@link BlkStatus}. */
  readonly status: number;

  /** A refusal. */
  constructor(what: string, status: number) {
    super(`${what}: ${status === BlkStatus.UNSUPP ? "not supported" : "I/O error"} (status ${status})`);
    this.status = status;
  }
}

/** Room for one request: header, status and data. */
interface Slot {
  readonly header: Piece;
  readonly view: DataView;
  readonly status: Piece;
  readonly data: Piece;
}

async function readConfig(frontEnd: FrontEnd): Promise<BlkConfig> {
  return blkConfig.decode(await frontEnd.readConfig(0, blkConfig.size), frontEnd.endianness);
}

/** A disk behind a vhost-user socket. */
export class BlkDriver {
  /** The session. */
  readonly frontEnd: FrontEnd;
  /** The configuration space as it was at the start, or after {@link refresh}. */
  config: BlkConfig;
  readonly #memory: SharedMemory;
  readonly #queues: DriverQueue[];
  readonly #free: Slot[];
  readonly #waiting: (() => void)[] = [];
  readonly #maxTransfer: number;
  readonly #spin: number;
  #turn = 0;

  private constructor(
    frontEnd: FrontEnd,
    config: BlkConfig,
    memory: SharedMemory,
    queues: DriverQueue[],
    slots: Slot[],
    maxTransfer: number,
    spin: number,
  ) {
    this.frontEnd = frontEnd;
    this.config = config;
    this.#memory = memory;
    this.#queues = queues;
    this.#free = slots;
    this.#maxTransfer = maxTransfer;
    this.#spin = spin;
  }

  /** Connects to a disk and starts its queues. */
  static async connect(socketPath: string, options: BlkDriverOptions = {}): Promise<BlkDriver> {
    const { numQueues = 1, queueSize = 128, depth = 32, maxTransfer = 65536, indirect = false, spinUs = 0 } =
      options;
    const frontEnd = await FrontEnd.connect(socketPath, { deviceFeatures: DRIVER_FEATURES, ...options });
    const rings = numQueues * (queueSize * (26 + (indirect ? 64 : 0)) + 4096);
    const memory = new SharedMemory(rings + depth * (maxTransfer + 64) + 65536);
    try {
      await frontEnd.shareMemory(memory);
      if (options.reconnect !== undefined) await frontEnd.recordInflight(numQueues, queueSize);
      const queues: DriverQueue[] = [];
      // A read, write, flush or discard that is carried out twice has done no more than once.
      const queueOptions = { size: queueSize, tableSize: indirect ? 4 : 0, resubmit: true };
      for (let i = 0; i < numQueues; i++) queues.push(await frontEnd.startQueue(i, memory, queueOptions));
      await frontEnd.driverOk();
      // Only now does the device know the byte order.
      const config = await readConfig(frontEnd);
      const slots = Array.from({ length: depth }, (): Slot => {
        const header = memory.allocate(HEADER_SIZE);
        return {
          header,
          view: new DataView(header.bytes.buffer, header.bytes.byteOffset, HEADER_SIZE),
          status: memory.allocate(1, 1),
          data: memory.allocate(maxTransfer, SECTOR),
        };
      });
      return new BlkDriver(frontEnd, config, memory, queues, slots, maxTransfer, spinUs / 1000);
    } catch (error) {
      frontEnd.close();
      memory.close();
      throw error;
    }
  }

  /** Bytes of the disk. */
  get size(): number {
    return Number(this.config.capacity) * SECTOR;
  }

  get #little(): boolean {
    return this.frontEnd.endianness === "little";
  }

  /** Reads the configuration space again. */
  async refresh(): Promise<void> {
    this.config = await readConfig(this.frontEnd);
  }

  /**
   * Does one request. The slot is this request's alone until the function that fills and reads it has run.
   *
   * @throws {BlkError} when the disk refuses
   */
  async #request<T>(
    what: string,
    type: number,
    position: number,
    buffers: (slot: Slot) => { readable: readonly Buffer[]; writable: readonly Buffer[] },
    result: (slot: Slot) => T,
  ): Promise<T> {
    while (this.#free.length === 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    const slot = this.#free.pop() as Slot;
    try {
      const { readable, writable } = buffers(slot);
      const little = this.#little;
      slot.view.setUint32(0, type, little);
      slot.view.setUint32(4, 0, little);
      slot.view.setBigUint64(8, BigInt(position / SECTOR), little);
      slot.status.bytes[0] = 0xff;
      const queue = this.#queues[this.#turn++ % this.#queues.length];
      const done = queue.request(
        [{ guestAddress: slot.header.guestAddress, length: HEADER_SIZE }, ...readable],
        [...writable, { guestAddress: slot.status.guestAddress, length: 1 }],
      );
      if (this.#spin > 0) this.#look(queue);
      await done;
      const status = slot.status.bytes[0];
      if (status !== BlkStatus.OK) throw new BlkError(what, status);
      return result(slot);
    } finally {
      this.#free.push(slot);
      this.#waiting.shift()?.();
    }
  }

  #look(queue: DriverQueue): void {
    const end = performance.now() + this.#spin;
    while (queue.collect() === 0 && performance.now() < end);
  }

  /** Reads bytes, in as many requests at once as there is room for. */
  async read(position: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const target = new Uint8Array(length);
    await this.#split(
      position,
      length,
      (at, size) =>
        this.#request(`read of ${size} bytes at ${at}`, BlkRequest.IN, at, ({ data }) => ({
          readable: [],
          writable: [{ guestAddress: data.guestAddress, length: size }],
        }), ({ data }) => target.set(data.bytes.subarray(0, size), at - position)),
    );
    return target;
  }

  /** Writes bytes. */
  async write(position: number, source: Uint8Array): Promise<void> {
    await this.#split(
      position,
      source.length,
      (at, size) =>
        this.#request(`write of ${size} bytes at ${at}`, BlkRequest.OUT, at, ({ data }) => {
          data.bytes.set(source.subarray(at - position, at - position + size));
          return { readable: [{ guestAddress: data.guestAddress, length: size }], writable: [] };
        }, () => {}),
    );
  }

  async #split(
    position: number,
    length: number,
    one: (at: number, size: number) => Promise<void>,
  ): Promise<void> {
    const pending: Promise<void>[] = [];
    for (let done = 0; done < length; done += this.#maxTransfer) {
      pending.push(one(position + done, Math.min(this.#maxTransfer, length - done)));
    }
    await Promise.all(pending);
  }

  /** Makes everything durable. */
  async flush(): Promise<void> {
    await this.#request("flush", BlkRequest.FLUSH, 0, () => ({ readable: [], writable: [] }), () => {});
  }

  /** Gives a range back. */
  discard(position: number, length: number): Promise<void> {
    return this.#range("discard", BlkRequest.DISCARD, position, length, 0);
  }

  /** Zeroes a range. */
  writeZeroes(position: number, length: number, unmap = false): Promise<void> {
    return this.#range("write-zeroes", BlkRequest.WRITE_ZEROES, position, length, unmap ? RANGE_UNMAP : 0);
  }

  async #range(what: string, type: number, position: number, length: number, flags: number): Promise<void> {
    await this.#request(`${what} of ${length} bytes at ${position}`, type, 0, ({ data }) => {
      const view = new DataView(data.bytes.buffer, data.bytes.byteOffset, RANGE_SIZE);
      const little = this.#little;
      view.setBigUint64(0, BigInt(position / SECTOR), little);
      view.setUint32(8, length / SECTOR, little);
      view.setUint32(12, flags, little);
      return { readable: [{ guestAddress: data.guestAddress, length: RANGE_SIZE }], writable: [] };
    }, () => {});
  }

  /** The disk's serial number. */
  id(): Promise<string> {
    return this.#request("id", BlkRequest.GET_ID, 0, ({ data }) => ({
      readable: [],
      writable: [{ guestAddress: data.guestAddress, length: ID_SIZE }],
    }), ({ data }) => new TextDecoder().decode(data.bytes.slice(0, ID_SIZE)).replace(/\0.*/s, ""));
  }

  /** Stops the queues in order and disconnects; does not wait for a back-end that is away. */
  async close(): Promise<void> {
    try {
      if (!this.frontEnd.connected) return;
      for (const queue of this.#queues) await this.frontEnd.stopQueue(queue);
    } finally {
      this.frontEnd.close();
      this.#memory.close();
    }
  }
}
