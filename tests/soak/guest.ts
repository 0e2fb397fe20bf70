import { readFileSync } from "node:fs";
import { close } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { type DriverQueue, FrontEnd, type Piece, SharedMemory } from "../../src/frontend/mod.ts";
import { LOG_PAGE } from "../../src/memory/dirty_log.ts";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/features.ts";

/** What came back for a request. */
export interface Returned {
  readonly written: number;
  /** The room, as far as it was written, and beyond as it was. */
  readonly bytes: Uint8Array;
}

/** How a guest presents itself. */
export interface GuestOptions {
  readonly packed: boolean;
  readonly queues: number;
  readonly deviceFeatures: bigint;
}

const MEMORY = 8 << 20;
const QUEUE_SIZE = 32;
/** Pages of the log: the guest's memory starts at 256 MiB. */
const LOG_SIZE = ((0x1000_0000 + MEMORY) / LOG_PAGE) / 8;

/** Who does what a guest does: requests, and everything that happens to rings while there are some. */
export class SoakGuest {
  readonly memory = new SharedMemory(MEMORY);
  readonly queues: DriverQueue[] = [];
  /** How often the device was reset: requests from before may have failed. */
  resets = 0;
  /** Requests for which the device has written something. */
  answered = 0;
  /** Whether it is being reset. */
  resetting = false;
  /** Whether it is about to leave, so that requests may fail. */
  leaving = false;
  readonly #options: GuestOptions;
  readonly #free = new Map<number, Piece[]>();
  #front: FrontEnd;

  static async connect(path: string, options: GuestOptions): Promise<SoakGuest> {
    const guest = new SoakGuest(await dial(path, options), options);
    try {
      await guest.#front.shareMemory(guest.memory);
      await guest.#startQueues();
      return guest;
    } catch (error) {
      guest.close();
      throw error;
    }
  }

  private constructor(front: FrontEnd, options: GuestOptions) {
    this.#front = front;
    this.#options = options;
  }

  get front(): FrontEnd {
    return this.#front;
  }

  async #startQueues(): Promise<void> {
    this.queues.length = 0;
    for (let i = 0; i < this.#options.queues; i++) {
      this.queues.push(await this.#front.startQueue(i, this.memory, { size: QUEUE_SIZE }));
    }
    await this.#front.driverOk();
  }

  #take(length: number): Piece {
    const size = 2 ** Math.ceil(Math.log2(Math.max(64, length)));
    return this.#free.get(size)?.pop() ?? this.memory.allocate(size, 64);
  }

  #give(piece: Piece): void {
    const { length } = piece.bytes;
    const list = this.#free.get(length) ?? [];
    list.push(piece);
    this.#free.set(length, list);
  }

  /** Sends bytes with room for an answer. What fails keeps its memory: the device may have it still. */
  ask(queue: number, sent: readonly Uint8Array[], rooms: readonly number[] = []): Promise<Returned> {
    const answer = this.#ask(queue, sent, rooms);
    // Of several that are cut off at once, nobody may come to await all.
    answer.catch(() => {});
    return answer;
  }

  async #ask(
    queue: number,
    sent: readonly Uint8Array[],
    rooms: readonly number[],
  ): Promise<Returned> {
    const out = sent.filter(({ length }) => length > 0).map((bytes) => {
      const piece = this.#take(bytes.length);
      piece.bytes.set(bytes);
      return { piece, length: bytes.length };
    });
    const into = rooms.filter((length) => length > 0).map((length) => {
      const piece = this.#take(length);
      piece.bytes.fill(0xee, 0, length);
      return { piece, length };
    });
    const lists = [out, into].map((list) =>
      list.map(({ piece, length }) => ({ guestAddress: piece.guestAddress, length }))
    );
    const written = await this.queues[queue].request(lists[0], lists[1]);
    if (written > 0) this.answered++;
    const bytes = new Uint8Array(into.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const { piece, length } of into) {
      bytes.set(piece.bytes.subarray(0, length), at);
      at += length;
    }
    for (const { piece } of [...out, ...into]) this.#give(piece);
    return { written, bytes };
  }

  /** Stops all rings where they stand: what the device has, it finishes or gives back. */
  async stop(): Promise<void> {
    for (const queue of this.queues) {
      await this.#front.stopRing(queue.index);
      queue.collect();
    }
  }

  /** Ends {@link stop}. */
  async start(): Promise<void> {
    for (const queue of this.queues) await this.#front.startRing(queue);
    await this.#front.driverOk();
  }

  /** Goes on at another server: memory, rings and what is in them are the same. */
  async move(path: string): Promise<void> {
    await this.stop();
    // Many devices have one guest at a time.
    this.#front.close();
    this.#front = await dial(path, this.#options);
    await this.#front.shareMemory(this.memory);
    await this.start();
  }

  /** Resets the device and drives it anew. */
  async reset(): Promise<void> {
    this.resets++;
    this.resetting = true;
    await this.#front.resetDevice();
    await this.#startQueues();
    // What was begun in between may fail too.
    this.resets++;
    this.resetting = false;
  }

  /** Has what is written marked, as while it moves to another host, and calls `during`. Returns the pages that were. */
  async logged(during: () => Promise<void>): Promise<number> {
    const fd = memoryFile("vhost-user-log", LOG_SIZE);
    try {
      await this.#front.request("SET_LOG_BASE", { size: BigInt(LOG_SIZE), offset: 0n }, [fd]);
      const { features } = this.#front;
      await this.#front.request("SET_FEATURES", features | mask(ringFeatures.LOG_ALL));
      await during();
      await this.#front.request("SET_FEATURES", features);
      return onesIn(fd);
    } finally {
      close(fd);
    }
  }

  /** Leaves, whatever is under way. */
  close(): void {
    this.leaving = true;
    this.#front.close();
    for (const queue of this.queues) queue.close();
    this.memory.close();
  }
}

function dial(path: string, { packed, deviceFeatures }: GuestOptions): Promise<FrontEnd> {
  return FrontEnd.connect(path, {
    deviceFeatures,
    withoutFeatures: packed ? 0n : mask(ringFeatures.RING_PACKED),
    protocolFeatures: mask(protocolFeatures.LOG_SHMFD),
  });
}

function onesIn(fd: number): number {
  return readFileSync(`/proc/self/fd/${fd}`).reduce((sum, byte) => {
    for (let bits = byte; bits > 0; bits >>= 1) sum += bits & 1;
    return sum;
  }, 0);
}
