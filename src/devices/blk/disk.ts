/**
 * The block device.
 *
 * @module
 */

import { Device, type DeviceBehaviour, LATER, type Queue, type WorkerRules } from "../../backend/device.ts";
import { loadDefault } from "../../backend/threads/make_device.ts";
import { has, mask, ringFeatures } from "../../protocol/features.ts";
import type { Endianness } from "../../protocol/struct.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import {
  BARRIER,
  blkConfig,
  blkFeatures,
  BlkRequest,
  BlkStatus,
  HEADER_SIZE,
  ID_SIZE,
  RANGE_SIZE,
  RANGE_UNMAP,
} from "./layout.ts";
import { blkRequests } from "./request_format.ts";
import { type Completion, type Deferrable, promised, SECTOR, type Storage } from "../storage/storage.ts";

const { OK, IOERR, UNSUPP } = BlkStatus;

/** Segments of a request: what fits in a ring of 128 with header and status, which is QEMU's default. */
const SEG_MAX = 126;
/** Sectors of one discarded range: 1 GiB. */
const MAX_DISCARD_SECTORS = 1 << 21;
/** Sectors of one zeroed range: 32 MiB, which may have to be written. */
const MAX_WRITE_ZEROES_SECTORS = 1 << 16;
/** Ranges of one request. */
const MAX_RANGES = 16;

/** What a disk is made of. */
export interface BlkOptions {
  /** Where its bytes are. Closed by {@link BlkDevice.close}. */
  readonly storage: Storage;
  /** Refuses writes; also when the storage does. */
  readonly readOnly?: boolean;
  /** Most queues that the front-end may use; 16 by default. QEMU wants at least as many as the guest has processors. */
  readonly numQueues?: number;
  /** What the guest reads as the disk's serial number, up to 20 ASCII characters. */
  readonly id?: string;
  /** Logical block, bytes: a power of two from 512 (the default) to 4096. */
  readonly blockSize?: number;
  /**
   * Whether several front-ends may be connected at once. By default only for a read-only disk: two guests that write to
   * one file system destroy it.
   */
  readonly shared?: boolean;
}

function checked(options: BlkOptions): BlkOptions {
  const { numQueues = 16, id = "", blockSize = SECTOR, storage } = options;
  if (!Number.isInteger(numQueues) || numQueues < 1 || numQueues > 256) {
    throw new RangeError(`numQueues must be 1 to 256, got ${numQueues}`);
  }
  // deno-lint-ignore no-control-regex
  if (id.length > ID_SIZE || !/^[\x00-\x7f]*$/.test(id)) {
    throw new RangeError(`id must have at most ${ID_SIZE} ASCII characters, got ${JSON.stringify(id)}`);
  }
  if (![512, 1024, 2048, 4096].includes(blockSize)) {
    throw new RangeError(`blockSize must be 512, 1024, 2048 or 4096, got ${blockSize}`);
  }
  if (!(storage.size >= 0) || storage.size % SECTOR !== 0) {
    throw new RangeError(`storage size must be a multiple of ${SECTOR} bytes, got ${storage.size}`);
  }
  return options;
}

function features({ storage, readOnly = storage.readOnly }: BlkOptions): bigint {
  const { SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, MQ, RO, DISCARD, WRITE_ZEROES } = blkFeatures;
  const bits: number[] = [SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, MQ];
  if (readOnly) bits.push(RO);
  if (!readOnly && storage.discard !== undefined) bits.push(DISCARD);
  if (!readOnly && storage.writeZeroes !== undefined) bits.push(WRITE_ZEROES);
  return mask(...bits);
}

/** What a disk sends of itself to another thread. */
interface SharedDisk extends Omit<BlkOptions, "storage"> {
  readonly storage: { readonly module: string; readonly options: unknown };
}

/** Makes the same disk in another thread, over its storage, which is opened once more. */
export default async function makeDisk({ storage, ...options }: SharedDisk): Promise<BlkDevice> {
  const open = await loadDefault(storage.module) as (options: unknown) => Storage | Promise<Storage>;
  return new BlkDevice({ ...options, storage: await open(storage.options) });
}

/** How the same disk is made in a worker thread, if its storage can be opened there. */
function workerRules({ storage, ...options }: BlkOptions): WorkerRules | undefined {
  if (storage.worker === undefined) return undefined;
  const { module, options: storageOptions } = storage.worker;
  return {
    module: import.meta.url,
    options: {
      ...options,
      storage: { module: String(module), options: storageOptions },
    } satisfies SharedDisk,
  };
}

/**
 * A disk (virtio device 2).
 *
 * @example
 * ```ts
 * import { serve } from "@vhost/user";
 * import { BlkDevice, MemoryStorage } from "@vhost/user/devices/blk";
 *
 * const disk = new BlkDevice({ storage: new MemoryStorage(64 * 2 ** 20), id: "scratch" });
 * const server = await serve(disk, { socketPath: `/tmp/disk-${crypto.randomUUID()}.sock` });
 * // … and when it is no longer needed:
 * server.close();
 * disk.close();
 * ```
 */
export class BlkDevice extends Device {
  /** Where its bytes are. */
  readonly storage: Storage;
  readonly #options: BlkOptions;

  /** A disk over a storage, which it owns from here on. */
  constructor(options: BlkOptions) {
    const { storage, readOnly = storage.readOnly, shared = readOnly } = checked(options);
    super({
      type: 2,
      name: "blk",
      features: features(options),
      exclusive: !shared,
      requests: blkRequests,
      stateless: options.storage.volatile !== true,
      ready: () => storage.settled ?? true,
      worker: workerRules(options),
      connect: () => new BlkFrontEnd(options),
    });
    this.storage = storage;
    this.#options = options;
  }

  /** Whether writes are refused. */
  get readOnly(): boolean {
    return this.#options.readOnly ?? this.storage.readOnly;
  }

  /** Tells the guest that the storage has another size now. */
  resized(): void {
    this.configChanged();
  }

  /** Closes the storage. */
  override close(): void {
    this.storage.close();
  }
}

/** The disk as one front-end sees it: the state that the driver sets is its own. */
class BlkFrontEnd implements DeviceBehaviour {
  readonly queues: readonly ((chain: Chain, queue: Queue) => unknown)[];
  readonly crossEndian = true;
  readonly config: {
    read(endianness: Endianness): Uint8Array;
    write(offset: number, data: Uint8Array): void;
    follow(before: Uint8Array, endianness: Endianness): void;
  };
  readonly #options: BlkOptions;
  readonly #storage: Storage;
  readonly #readOnly: boolean;
  readonly #id: Uint8Array;
  #writeback = true;
  #features = 0n;
  /** What counts of a request's kind. */
  #typeMask = ~0;
  /** Whether a write is complete only when it is durable. */
  #writeThrough = false;

  constructor(options: BlkOptions) {
    const { storage, readOnly = storage.readOnly, numQueues = 16, id = "vhost-user" } = options;
    this.#options = options;
    this.#storage = storage;
    this.#readOnly = readOnly;
    this.#id = new Uint8Array(ID_SIZE);
    this.#id.set(new TextEncoder().encode(id));
    const handle = (chain: Chain, queue: Queue) => this.#handle(chain, queue);
    this.queues = new Array(numQueues).fill(handle);
    this.config = {
      read: (endianness) => this.#config(endianness),
      write: (offset, data) => this.#setConfig(offset, data),
      follow: (before, endianness) => this.#follow(before, endianness),
    };
  }

  negotiated(features: bigint): void {
    this.#features = features;
    this.#typeMask = has(features, ringFeatures.VERSION_1) ? ~0 : ~BARRIER;
    this.#decideCache();
  }

  reset(): void {
    this.#writeback = true;
    this.#features = 0n;
    this.#decideCache();
  }

  /** Without FLUSH and without a say in it, a driver relies on every write being durable (virtio 1.4, 5.2.6.2). */
  #decideCache(): void {
    this.#writeThrough = has(this.#features, blkFeatures.CONFIG_WCE)
      ? !this.#writeback
      : !has(this.#features, blkFeatures.FLUSH);
  }

  #config(endianness: Endianness): Uint8Array {
    const { numQueues = 16, blockSize = SECTOR } = this.#options;
    const zeroes = this.#storage.writeZeroes !== undefined && !this.#readOnly;
    const discard = this.#storage.discard !== undefined && !this.#readOnly;
    return blkConfig.encode({
      capacity: BigInt(Math.floor(this.#storage.size / SECTOR)),
      sizeMax: 0,
      segMax: SEG_MAX,
      cylinders: 0,
      heads: 0,
      sectors: 0,
      blkSize: blockSize,
      physicalBlockExp: Math.log2(4096 / blockSize),
      alignmentOffset: 0,
      minIoSize: 4096 / blockSize,
      optIoSize: 0,
      writeback: this.#writeback ? 1 : 0,
      unused0: 0,
      numQueues,
      maxDiscardSectors: discard ? MAX_DISCARD_SECTORS : 0,
      maxDiscardSeg: discard ? MAX_RANGES : 0,
      discardSectorAlignment: discard ? 4096 / SECTOR : 0,
      maxWriteZeroesSectors: zeroes ? MAX_WRITE_ZEROES_SECTORS : 0,
      maxWriteZeroesSeg: zeroes ? MAX_RANGES : 0,
      writeZeroesMayUnmap: zeroes ? 1 : 0,
      unused1: new Uint8Array(3),
      maxSecureEraseSectors: 0,
      maxSecureEraseSeg: 0,
      secureEraseSectorAlignment: 0,
      zoned: new Uint8Array(24),
    }, endianness);
  }

  #setConfig(offset: number, data: Uint8Array): void {
    if (offset !== blkConfig.offsets.writeback || data.length !== 1 || data[0] > 1) {
      throw new RangeError(
        `only writeback (1 byte at ${blkConfig.offsets.writeback}, 0 or 1) can be written, ` +
          `got ${data.length} bytes at ${offset}`,
      );
    }
    this.#writeback = data[0] === 1;
    this.#decideCache();
  }

  /** A driver goes on that has known the disk by `before`. The disk may have grown; all else is as it was. */
  #follow(before: Uint8Array, endianness: Endianness): void {
    const now = this.#config(endianness);
    const view = (bytes: Uint8Array): DataView =>
      new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const at = blkConfig.offsets.capacity;
    const sectors = (bytes: Uint8Array): bigint => view(bytes).getBigUint64(at, endianness === "little");
    if (before.length !== now.length) {
      throw new RangeError(`the configuration space must have ${before.length} bytes, got ${now.length}`);
    }
    if (sectors(now) < sectors(before)) {
      throw new RangeError(`the disk must have at least ${sectors(before)} sectors, got ${sectors(now)}`);
    }
    for (let i = 0; i < now.length; i++) {
      if (now[i] === before[i] || (i >= at && i < at + 8)) continue;
      const [name] = Object.entries(blkConfig.offsets).findLast(([, offset]) => offset <= i) ?? ["byte"];
      throw new RangeError(`the disk must be as the driver knows it, but its ${name} is another`);
    }
  }

  #handle(chain: Chain, queue: Queue): unknown {
    const { readable, writable } = chain;
    const last = writable.byteLength - 1;
    if (last < 0) throw new RangeError(`head ${chain.head}: a request needs a writable byte for its status`);
    if (readable.byteLength < HEADER_SIZE) return complete(chain, IOERR, 1);
    try {
      const type = readable.getUint32(0) & this.#typeMask;
      switch (type) {
        case BlkRequest.IN: {
          const position = this.#position(readable.getUint64(8), last);
          const data = chain.data.set(writable, 0, last);
          const pending = this.#storage.read(data, position, waiting(chain, queue, last + 1));
          return pending === undefined ? complete(chain, OK, last + 1) : later(chain, pending, last + 1);
        }
        case BlkRequest.OUT: {
          const length = readable.byteLength - HEADER_SIZE;
          const position = this.#position(readable.getUint64(8), length);
          this.#checkWritable();
          const data = chain.data.set(readable, HEADER_SIZE, length);
          if (this.#writeThrough) {
            return later(
              chain,
              this.#durable((completion) => this.#storage.write(data, position, completion)),
              1,
            );
          }
          const pending = this.#storage.write(data, position, waiting(chain, queue, 1));
          return pending === undefined ? complete(chain, OK, 1) : later(chain, pending, 1);
        }
        case BlkRequest.FLUSH: {
          const pending = this.#storage.flush(waiting(chain, queue, 1));
          return pending === undefined ? complete(chain, OK, 1) : later(chain, pending, 1);
        }
        case BlkRequest.GET_ID:
          if (last < ID_SIZE) return complete(chain, IOERR, 1);
          writable.copyFrom(this.#id);
          return complete(chain, OK, ID_SIZE + 1);
        case BlkRequest.DISCARD:
        case BlkRequest.WRITE_ZEROES:
          return this.#ranges(chain, type);
        default:
          return complete(chain, UNSUPP, 1);
      }
    } catch {
      return complete(chain, IOERR, 1);
    }
  }

  /** Where a request starts, bytes. */
  #position(sector: number, length: number): number {
    const position = sector * SECTOR;
    if (length % SECTOR !== 0 || position + length > this.#storage.size) {
      throw new RangeError(`${length} bytes at sector ${sector}: the disk has ${this.#storage.size} bytes`);
    }
    return position;
  }

  #checkWritable(): void {
    if (this.#readOnly) throw new TypeError("the disk is read-only");
  }

  /** Something, and a flush after it. */
  async #durable(write: Deferrable): Promise<void> {
    await promised(write);
    await promised((completion) => this.#storage.flush(completion));
  }

  /** DISCARD and WRITE_ZEROES: all ranges are checked before the first is touched. */
  #ranges(chain: Chain, type: number): unknown {
    const { readable } = chain;
    const discard = type === BlkRequest.DISCARD;
    if (discard ? this.#storage.discard === undefined : this.#storage.writeZeroes === undefined) {
      return complete(chain, UNSUPP, 1);
    }
    this.#checkWritable();
    const length = readable.byteLength - HEADER_SIZE;
    const count = length / RANGE_SIZE;
    if (!Number.isInteger(count) || count < 1 || count > MAX_RANGES) return complete(chain, IOERR, 1);
    const limit = discard ? MAX_DISCARD_SECTORS : MAX_WRITE_ZEROES_SECTORS;
    const ranges: { position: number; length: number; unmap: boolean }[] = [];
    for (let at = HEADER_SIZE; at < readable.byteLength; at += RANGE_SIZE) {
      const sectors = readable.getUint32(at + 8);
      const flags = readable.getUint32(at + 12);
      if ((flags & ~(discard ? 0 : RANGE_UNMAP)) !== 0) return complete(chain, UNSUPP, 1);
      if (sectors > limit) return complete(chain, IOERR, 1);
      const position = this.#position(readable.getUint64(at), sectors * SECTOR);
      ranges.push({ position, length: sectors * SECTOR, unmap: (flags & RANGE_UNMAP) !== 0 });
    }
    const storage = this.#storage;
    const pending: Promise<void>[] = [];
    for (const { position, length, unmap } of ranges) {
      if (length === 0) continue;
      const result = discard
        ? storage.discard?.(position, length)
        : storage.writeZeroes?.(position, length, unmap);
      if (result !== undefined) pending.push(result);
    }
    if (!discard && this.#writeThrough) return later(chain, this.#durable(() => settled(pending)), 1);
    return pending.length === 0 ? complete(chain, OK, 1) : later(chain, settled(pending), 1);
  }
}

async function settled(pending: readonly Promise<void>[]): Promise<void> {
  await Promise.all(pending);
}

function complete(chain: Chain, status: number, written: number): void {
  chain.writable.setUint8(chain.writable.byteLength - 1, status);
  chain.written = written;
}

function later(
  chain: Chain,
  pending: Promise<void> | typeof LATER,
  written: number,
): Promise<void> | typeof LATER {
  if (pending === LATER) return LATER;
  return pending.then(() => complete(chain, OK, written), () => complete(chain, IOERR, 1));
}

/** A request that its storage does later. Kept with the ring slot. */
class Waiting implements Completion {
  readonly #chain: Chain;
  #queue: Queue;
  #written = 0;

  constructor(chain: Chain, queue: Queue) {
    this.#chain = chain;
    this.#queue = queue;
  }

  set(queue: Queue, written: number): this {
    this.#queue = queue;
    this.#written = written;
    return this;
  }

  done(error?: unknown): void {
    if (error === undefined) complete(this.#chain, OK, this.#written);
    else complete(this.#chain, IOERR, 1);
    this.#queue.complete(this.#chain);
  }
}

function waiting(chain: Chain, queue: Queue, written: number): Waiting {
  const kept = chain.context;
  if (kept instanceof Waiting) return kept.set(queue, written);
  const made = new Waiting(chain, queue);
  chain.context = made;
  return made.set(queue, written);
}
