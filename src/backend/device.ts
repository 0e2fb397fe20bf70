/**
 * What a device is.
 *
 * @module
 */

import type { ProtocolFeature } from "../protocol/features.ts";
import type { BackendMessage, backendMessages, PayloadOf, ReplyOf } from "../protocol/messages.ts";
import type { CryptoSession } from "../protocol/payloads.ts";
import type { Endianness } from "../protocol/struct.ts";
import type { Answer } from "../transport/requester.ts";
import type { Chain } from "../virtqueue/chain.ts";

import type { StateKeeper } from "./device_state.ts";
import type { SharedWindows } from "./shared_windows.ts";

/** A running ring, as a handler sees it. */
export interface Queue {
  /** Number of the ring in the device. */
  readonly index: number;
  /** Entries. */
  readonly size: number;
  /** The features that the driver accepted, of both device and ring. */
  readonly features: bigint;
  /**
   * Completes a request whose handler has returned {@link LATER}. Allocates nothing. The driver sees it with others of the
   * same turn.
   */
  complete(chain: Chain): void;
  /** Byte order of the ring and of the requests in it. */
  readonly endianness: Endianness;
}

// The same in every copy of this package: a device's module may have got another one than the server.
/** What a handler returns when it will call {@link Queue.complete}: a promise that costs nothing. */
export const LATER: unique symbol = Symbol.for("@vhost/user LATER");

/**
 * Handles a request. It has completed when the function returns; when that is a promise, when it resolves; when it is
 * {@link LATER}, at {@link Queue.complete}. Any other result is ignored; what counts is what was written to the chain.
 * Requests may complete in any order.
 *
 * An exception completes the request as well, with what was written so far, and is logged.
 */
export type QueueHandler = (chain: Chain, queue: Queue) => unknown;

/**
 * A ring in the hands of its device, from {@link QueueOwner.start} to {@link QueueOwner.stop}. All of it is synchronous and
 * allocates nothing. Outside that time there is never a chain, and what is completed is ignored: a device need not know
 * whether its ring runs.
 */
export interface OwnedQueue extends Queue {
  /**
   * Takes the next chain that the driver has made available. It is the device's, and its memory stays mapped, until it is
   * completed or the ring stops.
   *
   * @returns the chain, or `null` when there is none; {@link QueueOwner.work} is called as soon as there is one again
   */
  take(): Chain | null;
  /**
   * {@link take}, for several at once, which costs less for each.
   *
   * @param into where they are put
   * @param at place of the first
   * @param most how many to take at the most
   * @returns how many were taken, 0 when the ring has turned out to be broken; when they are fewer than `most`,
   * {@link QueueOwner.work} is called as soon as there is one again
   */
  takeBurst(into: Chain[], at: number, most: number): number;
  /**
   * Gives a chain back with {@link Chain.written} bytes. The driver sees it, together with others of the same turn, when the
   * back-end next looks at the ring: at once when that is busy, or at {@link publish}. A chain that is not the device's
   * any more is ignored.
   */
  complete(chain: Chain): void;
  /** Shows the driver what was completed, and tells it, without waiting for the end of the turn. */
  publish(): void;
  /** Has {@link QueueOwner.work} called soon, whether there is a chain or not: for work that had to wait. */
  wake(): void;
}

/**
 * A device that works on a ring by itself, in place of a {@link QueueHandler}: one that delivers to the driver when it has
 * something (received frames, input, console output), that wants its requests by the burst, or that keeps some for long.
 *
 * Chains that the device still holds when the ring stops are taken back. Where all were completed in the order in which
 * they were taken, the held ones are simply available again to whoever runs the ring next; otherwise a position cannot
 * say which they are, and they are given back with nothing written. A device for which that is not right completes them
 * in {@link stop}.
 *
 * @example A device that sends the driver the time, once a second
 * ```ts
 * import { defineDevice, type OwnedQueue, type QueueOwner } from "@vhost/user";
 *
 * class Clock implements QueueOwner {
 *   #queue?: OwnedQueue;
 *   start(queue: OwnedQueue) {
 *     this.#queue = queue;
 *   }
 *   stop() {
 *     this.#queue = undefined;
 *   }
 *   tick() {
 *     const chain = this.#queue?.take();
 *     if (!chain) return; // Nobody listens, or not fast enough.
 *     chain.write(new TextEncoder().encode(new Date().toISOString()));
 *     this.#queue?.complete(chain);
 *   }
 * }
 *
 * export const clock = defineDevice({
 *   type: 3,
 *   connect() {
 *     const owner = new Clock();
 *     const timer = setInterval(() => owner.tick(), 1000);
 *     return { queues: [owner, (chain) => chain.read()], disconnected: () => clearInterval(timer) };
 *   },
 * });
 * ```
 */
export interface QueueOwner {
  /** The ring runs: `queue` works from now on. Called before anything can be taken. */
  start?(queue: OwnedQueue): void;
  /**
   * There is a chain after {@link OwnedQueue.take} had found none, and the first time after {@link start} that there is
   * one; or this function has asked to be called again. Chains that it leaves are no reason to call it again.
   *
   * An exception breaks the ring: it stands still until the driver resets it.
   *
   * @returns whether to be called again soon: `true` after a good number of chains, so that other rings get their turn
   */
  work?(queue: OwnedQueue): boolean | void;
  /**
   * The ring does not run any more: it was stopped, disabled or found broken, the front-end has left, or guest memory
   * changes, after which {@link start} follows at once. Chains can be completed for the last time, unless the front-end has
   * left, and must be forgotten.
   */
  stop?(queue: OwnedQueue): void;
}

/** A kind of request. */
export interface RequestKind {
  /**
   * Where the answer has data, if it has: all that is written but for so many bytes before, and so many after. They are of the
   * answer's structure, such as a status.
   */
  readonly data?: readonly [before: number, after: number];
  /** Whether the answer has a status, by which the request can fail ({@link RequestFormat.fail}). */
  readonly fails?: boolean;
}

/**
 * What a device says of its requests, so that others can tell them apart and fail them without knowing the device. Chains are as the
 * driver made them: anything may be missing, and what is thrown for that is no error.
 */
export interface RequestFormat {
  /** The device type in a word: `blk`, for one. */
  readonly device: string;
  /** Kinds of request by name: `read`, `write`, …; rings, where all requests of one are alike. */
  readonly kinds: Readonly<Record<string, RequestKind>>;
  /** The name of a request's kind; `undefined` for one that is none of them. */
  kindOf(chain: Chain, queue: Queue): string | undefined;
  /** Errors that a request can fail with, the usual one first: statuses of the device by names of `errno`. */
  readonly errors?: Readonly<Record<string, number>>;
  /** The status of a request that did not fail; 0 by default. */
  readonly success?: number;
  /** Writes the answer of a request with a status, most often one of {@link errors}, and sets {@link Chain.written}. */
  fail?(chain: Chain, queue: Queue, status: number): void;
  /** What requests are about, where that is counted: `sector`, for one. */
  readonly places?: {
    /** What one is called. */
    readonly name: string;
    /** Whether a request is about one of them. */
    touches(chain: Chain, first: number, last: number): boolean;
  };
}

/** A device's configuration space. */
export interface ConfigSpace {
  /**
   * The bytes as they are now, at most 256. What the front-end reads past the end is zero.
   *
   * @param endianness byte order of the fields: little, but for a legacy driver on a big-endian machine
   */
  read(endianness: Endianness): Uint8Array;
  /**
   * The driver writes (or live migration does, which may also set what drivers cannot). Throw to refuse. Some front-ends
   * always write the whole space, whatever the driver has written (QEMU's generic device): what the driver cannot change
   * is then there as the front-end has read it last.
   *
   * @param offset of the first byte
   */
  write?(offset: number, data: Uint8Array, migration: boolean): void;
  /**
   * Another process hands a front-end over whose driver has seen these bytes; they are not those of {@link read}. Throw when
   * that driver cannot go on, as it cannot with a smaller disk; the other process then goes on. Otherwise the driver is told
   * of the change. Absent: no difference is taken.
   *
   * @param before with the same byte order as {@link read}
   */
  follow?(before: Uint8Array, endianness: Endianness): void;
}

/** What a device does, for one front-end. */
export interface DeviceBehaviour {
  /** A handler or an owner for each ring; the front-end may use fewer. */
  readonly queues: readonly (QueueHandler | QueueOwner)[];
  /** The configuration space, for device types that have one. */
  readonly config?: ConfigSpace;
  /**
   * Whether requests are read and written in the byte order of {@link Chain.endianness}, and the configuration space in that of
   * {@link ConfigSpace.read}: legacy drivers on big-endian machines can then use the device (CROSS_ENDIAN).
   */
  readonly crossEndian?: boolean;
  /** The driver has accepted these features. Called before any request, and again when they change. */
  negotiated?(features: bigint): void;
  /** Back to the state at power-on. No request is in flight. */
  reset?(): void;
  /**
   * The front-end waits for all requests of a ring to complete: it stops, or memory under it goes away. A device that holds some
   * back completes them now. Owners are told by {@link QueueOwner.stop}.
   */
  finishing?(ring: number): void;
  /** The front-end has left. */
  disconnected?(): void;
  /** Saves and loads the internal state, for live migration (DEVICE_STATE). */
  readonly state?: StateKeeper;
  /** Bytes of each shared memory region by id (SHMEM). */
  readonly sharedMemory?: ReadonlyMap<number, number>;
  /**
   * The dma-buf or other file behind a UUID that this device has exported (SHARED_OBJECT); the descriptor stays the
   * device's. `undefined` when it has none.
   */
  sharedObject?(uuid: Uint8Array): number | undefined;
  /** Sends a RARP broadcast from a MAC address, so that switches learn where the guest is now (RARP). */
  announce?(mac: Uint8Array): void;
  /** Takes the guest's MTU, bytes (MTU). Throw to refuse. */
  setMtu?(mtu: number): void;
  /**
   * Crypto sessions (CRYPTO_SESSION). Where a front-end takes the feature, rings run without SET_VRING_ENABLE as well:
   * QEMU's cryptodev-vhost-user does not send it.
   */
  readonly crypto?: CryptoSessions;
  /** Takes over the socket of a display (GPU_SET_SOCKET); the device closes it. */
  setGpuSocket?(fd: number): void;
  /** Whether the device hands out doorbell pages (HOST_NOTIFIER) by {@link FrontEndLink.request}. */
  readonly hostNotifiers?: boolean;
}

/** A device's crypto sessions. */
export interface CryptoSessions {
  /** Creates one. Returns its id, 0 or more; throw to refuse. */
  create(session: CryptoSession): bigint | Promise<bigint>;
  /** Closes one. Throw for an id that is not known. */
  close(id: bigint): void;
}

/** What a device can ask of its front-end. */
export interface FrontEndLink {
  /** Whether a protocol feature was negotiated. */
  negotiated(feature: ProtocolFeature): boolean;
  /**
   * Sends a message on the back-end channel; allowed while a ring runs.
   *
   * @param fds copies go to the front-end
   * @throws {ProtocolError} when it may not be sent now, or the front-end says that it failed
   */
  request<K extends BackendMessage>(
    name: K,
    payload: PayloadOf<(typeof backendMessages)[K]>,
    fds?: readonly number[],
  ): Promise<Answer<ReplyOf<(typeof backendMessages)[K]>>>;
  /** Files shown in shared memory regions. */
  readonly windows: SharedWindows;
}

/** How a device is made in worker threads, and how its rings are spread over them. */
export interface WorkerRules {
  /**
   * URL of a module whose default export is the device, or a function that makes one: it is loaded in each worker, as a device
   * cannot be sent there. Not needed when {@link serve} was itself given such a URL.
   */
  readonly module?: string | URL;
  /** What the function is called with: anything that can be cloned. */
  readonly options?: unknown;
  /**
   * How many rings, counted from the first, have to be in the same worker: 2 for pairs, for one; 1 by default. A device
   * that owns rings ({@link QueueOwner}) must say it.
   */
  readonly group?: number;
  /**
   * Whether the worker's event loop has to stay free for timers and promises that are of no request. By default it has if
   * the definition's own queues are owned; otherwise a worker waits in the kernel, which is quicker.
   */
  readonly eventLoop?: boolean;
}

/** What a device definition says. */
export interface DeviceDefinition extends Partial<DeviceBehaviour> {
  /** The virtio device id (virtio 1.4, section 5), such as 4 for an entropy source. */
  readonly type: number;
  /** For people: log and error texts. */
  readonly name?: string;
  /** Features of the device type (bits 0 to 23 and from 50). The toolkit adds those of the ring. */
  readonly features?: bigint;
  /** Whether it serves one front-end at a time; others wait in the socket's queue. */
  readonly exclusive?: boolean;
  /** What its requests are: for `withFaults` and others that look at them without knowing the device. */
  readonly requests?: RequestFormat;
  /**
   * Whether it keeps nothing between requests that a device made anew by the same options does not have: another process
   * can then take its front-ends over (`takeover` of {@link serve}). A device with {@link DeviceBehaviour.state} can be taken
   * over, too; others cannot. `false` says that it must not, not even while it has no front-end.
   */
  readonly stateless?: boolean;
  /**
   * Whether a front-end may be served now. Asked before each; while it is not so, front-ends wait in the socket's queue, and
   * it is asked again. Always so by default.
   */
  ready?(): boolean;
  /** Lets it run in worker threads (`workers` of {@link serve}). */
  readonly worker?: WorkerRules;
  /** Makes the behaviour for one front-end, where the state is not the same for all. */
  connect?(link: FrontEndLink): DeviceBehaviour;
}

/** A device that can be served. */
export class Device {
  /** What it says. */
  readonly definition: DeviceDefinition;
  readonly #watchers = new Set<() => void>();

  /** Use {@link defineDevice}. */
  constructor(definition: DeviceDefinition) {
    this.definition = definition;
  }

  /** Its name, for people. */
  get name(): string {
    return this.definition.name ?? `virtio device ${this.definition.type}`;
  }

  /** What it does for a new front-end. */
  connect(link: FrontEndLink): DeviceBehaviour {
    const { connect, queues } = this.definition;
    if (connect !== undefined) return connect.call(this.definition, link);
    if (queues === undefined) throw new TypeError(`${this.name}: a device needs either queues or connect()`);
    return this.definition as DeviceBehaviour;
  }

  /**
   * Lets go of what it holds, for devices that hold something. Who has made a device closes it, when its server has finished;
   * those in worker threads are closed by the server.
   */
  close(): void {}

  /** Tells every front-end, and by it the driver, that the configuration space has changed. */
  configChanged(): void {
    for (const watcher of this.#watchers) watcher();
  }

  /** Calls back at {@link configChanged}. Returns a function that ends that. */
  onConfigChange(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }
}

/**
 * Defines a device: its virtio type and what it does with requests.
 *
 * @example
 * ```ts
 * import { defineDevice } from "@vhost/user";
 *
 * export const rng = defineDevice({
 *   type: 4,
 *   queues: [(chain) => chain.write((bytes) => crypto.getRandomValues(bytes))],
 * });
 * ```
 *
 * @throws {TypeError} for a type, features or number of rings that cannot be
 */
export function defineDevice(definition: DeviceDefinition): Device {
  const { type, features = 0n, queues, connect } = definition;
  if (!Number.isInteger(type) || type < 1 || type > 0xffff) {
    throw new TypeError(`device type must be a virtio id from 1, got ${type}`);
  }
  if (features < 0n || features >> 64n !== 0n) throw new TypeError("device features must fit in 64 bits");
  if (features & 0x3fff_ff00_0000n) {
    throw new TypeError("device features must leave bits 24 to 45 to the ring and the transport");
  }
  if (queues === undefined && connect === undefined) {
    throw new TypeError("a device needs queues or connect()");
  }
  if (queues !== undefined && (queues.length < 1 || queues.length > 256)) {
    throw new TypeError(`a device has 1 to 256 queues, got ${queues.length}`);
  }
  return new Device(definition);
}
