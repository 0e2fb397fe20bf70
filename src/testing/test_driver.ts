/**
 * A device and its driver in one process.
 *
 * @module
 */

import { close } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import type { Device } from "../backend/device.ts";
import { errorText } from "../backend/log.ts";
import { serve, type ServeOptions, type Server } from "../backend/server.ts";
import type { DriverQueue } from "../frontend/driver_queue.ts";
import { FrontEnd } from "../frontend/front_end.ts";
import type { FrontEndOptions, QueueOptions } from "../frontend/options.ts";
import { type Piece, SharedMemory } from "../frontend/shared_memory.ts";

/** Features that the toolkit leaves to device types (virtio 1.4, section 2.2). */
const DEVICE_FEATURES = 0xfffc_0000_00ff_ffffn;

/** What a driver is like. */
export interface TestDriverOptions {
  /** Rings to start, from the first on; all that the device has by default. */
  readonly queues?: number;
  /** Entries of each ring and more about it; 64 by default. */
  readonly queue?: QueueOptions;
  /** Bytes of memory that driver and device share; 16 MiB by default. */
  readonly memory?: number;
  /** What it accepts and leaves out; by default it accepts every feature of the device type that is offered. */
  readonly frontEnd?: FrontEndOptions;
  /** How the device is served: with `workers`, for one. */
  readonly serve?: Omit<ServeOptions, "fd" | "socketPath">;
}

/**
 * A driver of a device that this process serves, for tests: the two are joined by a pair of sockets and shared memory, and
 * between them is everything that is between a virtual machine and a device. What is not covered here can be done with
 * {@link frontEnd}.
 *
 * To be closed by {@link close}, or by `await using`.
 */
export class TestDriver implements AsyncDisposable {
  /** The connection with the device. */
  readonly frontEnd: FrontEnd;
  /** The rings that run. */
  readonly queues: readonly DriverQueue[];
  /** The memory that both have. */
  readonly memory: SharedMemory;
  /** Warnings and errors of the server, as `level: text: error`, to be looked at and emptied by tests. */
  readonly problems: string[];
  readonly #server: Server;
  /** Pieces that no request has, by their size: a power of two. */
  readonly #free = new Map<number, Piece[]>();
  #configChanges = 0;
  #onConfigChange: () => void = () => {};

  /** Use {@link attach}. */
  private constructor(
    server: Server,
    frontEnd: FrontEnd,
    memory: SharedMemory,
    queues: readonly DriverQueue[],
    problems: string[],
  ) {
    this.#server = server;
    this.frontEnd = frontEnd;
    this.memory = memory;
    this.queues = queues;
    this.problems = problems;
    frontEnd.onConfigChange = () => {
      this.#configChanges++;
      this.#onConfigChange();
    };
  }

  /**
   * Serves a device and does what a driver does until it is ready: negotiates, shares memory, starts the rings.
   *
   * @param device as {@link serve} takes it
   * @throws what {@link serve} throws, and {@link ProtocolError} for what the device refuses
   */
  static async attach(device: Device | URL, options: TestDriverOptions = {}): Promise<TestDriver> {
    const [ours, theirs] = socketPair();
    const problems: string[] = [];
    let server: Server;
    try {
      server = await serve(device, {
        log: (level, text, error) => {
          if (level !== "warning" && level !== "error") return;
          problems.push(`${level}: ${text}${error === undefined ? "" : `: ${errorText(error)}`}`);
        },
        ...options.serve,
        fd: theirs,
      });
    } catch (error) {
      for (const fd of [ours, theirs]) close(fd);
      throw error;
    }
    const memory = new SharedMemory(options.memory ?? 16 << 20);
    let frontEnd: FrontEnd | undefined;
    try {
      frontEnd = await FrontEnd.dial(() => ours, { deviceFeatures: DEVICE_FEATURES, ...options.frontEnd });
      await frontEnd.shareMemory(memory);
      const count = options.queues ?? Number((await frontEnd.request("GET_QUEUE_NUM", undefined)).value);
      const queues: DriverQueue[] = [];
      for (let i = 0; i < count; i++) {
        queues.push(await frontEnd.startQueue(i, memory, { size: 64, ...options.queue }));
      }
      const driver = new TestDriver(server, frontEnd, memory, queues, problems);
      await frontEnd.driverOk();
      return driver;
    } catch (error) {
      frontEnd?.close();
      memory.close();
      server.close();
      await server.finished;
      throw error;
    }
  }

  #piece(length: number): Piece {
    const size = 2 ** Math.ceil(Math.log2(Math.max(16, length)));
    return this.#free.get(size)?.pop() ?? this.memory.allocate(size);
  }

  #give(piece: Piece): void {
    const { length } = piece.bytes;
    const others = this.#free.get(length);
    if (others === undefined) this.#free.set(length, [piece]);
    else others.push(piece);
  }

  /**
   * Sends a request and waits until the device has completed it. Where a device tells the driver something by itself
   * (events, received frames), the request is an empty buffer: no bytes and some room.
   *
   * @param queue number of the ring
   * @param bytes what the device reads; none by default
   * @param room bytes that the device may write; none by default
   * @returns what the device has written, by its own account
   * @throws {RangeError} for a request with neither, or when the device says that it wrote more than there was room for
   */
  async request(
    queue: number,
    bytes: Uint8Array = new Uint8Array(0),
    room: number = 0,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const sent = this.#piece(bytes.length);
    const answer = this.#piece(room);
    sent.bytes.set(bytes);
    answer.bytes.fill(0);
    const written = await this.queues[queue].request(
      bytes.length === 0 ? [] : [{ guestAddress: sent.guestAddress, length: bytes.length }],
      room === 0 ? [] : [{ guestAddress: answer.guestAddress, length: room }],
    );
    if (written > room) throw new RangeError(`the device says it wrote ${written} bytes to ${room}`);
    const copy = answer.bytes.slice(0, written);
    // A request that fails may still be in the device's hands, and keeps its memory.
    this.#give(sent);
    this.#give(answer);
    return copy;
  }

  /** Waits until the device has said that its configuration space has changed, once more than was waited for so far. */
  async configChanged(): Promise<void> {
    while (this.#configChanges === 0) {
      await new Promise<void>((resolve) => this.#onConfigChange = resolve);
    }
    this.#configChanges--;
  }

  /** Stops the rings, lets something happen, and starts them where they stood, as a migration does. */
  async #paused<T>(what: () => Promise<T>): Promise<T> {
    for (const { index } of this.queues) await this.frontEnd.stopRing(index);
    try {
      return await what();
    } finally {
      for (const queue of this.queues) {
        queue.collect();
        await this.frontEnd.startRing(queue);
      }
    }
  }

  /**
   * What the device hands on when its virtual machine moves. The rings stand still meanwhile.
   *
   * @throws {ProtocolError} when the device has no state, or fails to save it
   */
  saveState(): Promise<Uint8Array> {
    return this.#paused(() => this.frontEnd.saveState());
  }

  /**
   * Gives the device what another has saved. The rings stand still meanwhile.
   *
   * @throws {ProtocolError} when the device does not take it
   */
  loadState(state: Uint8Array): Promise<void> {
    return this.#paused(() => this.frontEnd.loadState(state));
  }

  /** Leaves, as a virtual machine does that ends, and waits until the device has noticed. Requests in flight fail. */
  async close(): Promise<void> {
    this.frontEnd.close();
    await this.#server.finished;
    this.memory.close();
  }

  /** Closes it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
