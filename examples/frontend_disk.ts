/**
 * The other side: reads a sector of a disk behind a vhost-user socket, as a virtual machine monitor's firmware would.
 *
 *     deno run --allow-ffi examples/frontend_disk.ts /tmp/disk.sock 0 > sector.bin
 *
 * Works with any back-end for disks: `vhost-user blk`, qemu-storage-daemon, SPDK. When the back-end is restarted in the middle,
 * the read goes on with the new one, within ten seconds.
 *
 * @module
 */

import process from "node:process";
import { type DriverQueue, FrontEnd, type Piece, SharedMemory } from "@vhost/user/frontend";

const SECTOR = 512;
/** Request type of virtio-blk (virtio 1.4, section 5.2.6). */
const IN = 0;

/** A disk of which sectors can be read, one at a time. */
export class ReadableDisk {
  readonly #frontEnd: FrontEnd;
  readonly #queue: DriverQueue;
  readonly #memory: SharedMemory;
  readonly #header: Piece;
  readonly #data: Piece;
  readonly #status: Piece;
  /** Sectors. */
  readonly capacity: bigint;

  private constructor(frontEnd: FrontEnd, memory: SharedMemory, queue: DriverQueue, capacity: bigint) {
    this.#frontEnd = frontEnd;
    this.#memory = memory;
    this.#queue = queue;
    this.capacity = capacity;
    this.#header = memory.allocate(16);
    this.#data = memory.allocate(SECTOR);
    this.#status = memory.allocate(1);
  }

  /** Connects, shares memory and starts the first queue. */
  static async open(socketPath: string): Promise<ReadableDisk> {
    const frontEnd = await FrontEnd.connect(socketPath, { reconnect: { patience: 10_000 } });
    const memory = new SharedMemory(65536);
    try {
      const config = await frontEnd.readConfig(0, 8);
      await frontEnd.shareMemory(memory);
      // What the back-end has taken when it dies is done by the next one; without such a record, we ask again.
      await frontEnd.recordInflight(1, 16);
      const queue = await frontEnd.startQueue(0, memory, { size: 16, resubmit: true });
      await frontEnd.driverOk();
      const capacity = new DataView(config.buffer, config.byteOffset).getBigUint64(0, true);
      return new ReadableDisk(frontEnd, memory, queue, capacity);
    } catch (error) {
      frontEnd.close();
      memory.close();
      throw error;
    }
  }

  /** Reads a sector. */
  async read(sector: bigint): Promise<Uint8Array> {
    const header = new DataView(this.#header.bytes.buffer, this.#header.bytes.byteOffset, 16);
    header.setUint32(0, IN, true);
    header.setBigUint64(8, sector, true);
    this.#status.bytes[0] = 0xff;
    await this.#queue.request(
      [{ guestAddress: this.#header.guestAddress, length: 16 }],
      [
        { guestAddress: this.#data.guestAddress, length: SECTOR },
        { guestAddress: this.#status.guestAddress, length: 1 },
      ],
    );
    const status = this.#status.bytes[0];
    if (status !== 0) throw new Error(`sector ${sector}: the disk answers status ${status}`);
    return this.#data.bytes.slice();
  }

  /** Stops the queue in order and disconnects. */
  async close(): Promise<void> {
    await this.#frontEnd.stopQueue(this.#queue);
    this.#frontEnd.close();
    this.#memory.close();
  }
}

if (import.meta.main) {
  const [socketPath, sector = "0"] = process.argv.slice(2);
  if (socketPath === undefined || socketPath === "--help") {
    console.error("Usage: deno run --allow-ffi examples/frontend_disk.ts SOCKET [SECTOR] > FILE");
    process.exit(socketPath === undefined ? 2 : 0);
  }
  const disk = await ReadableDisk.open(socketPath);
  console.error(`${disk.capacity} sectors`);
  process.stdout.write(await disk.read(BigInt(sector)));
  await disk.close();
}
