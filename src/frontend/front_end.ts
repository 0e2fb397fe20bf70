/**
 * The client side of a session.
 *
 * @module
 */

import { close } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { connect, socketPair } from "../../ffi/socket.ts";
import {
  DeviceStatus,
  has,
  mask,
  type ProtocolFeature,
  protocolFeatures,
  ringFeatures,
} from "../protocol/features.ts";
import {
  backendMessages,
  type FrontendMessage,
  frontendMessages,
  type PayloadOf,
  type ReplyOf,
} from "../protocol/messages.ts";
import { Connection, type Tap } from "../transport/connection.ts";
import { type Handlers, Responder } from "../transport/responder.ts";
import { type Answer, Requester } from "../transport/requester.ts";
import { DriverQueue } from "./driver_queue.ts";
import { DriverRing } from "./driver_ring.ts";
import type { SharedMemory } from "./shared_memory.ts";

/** Features of the ring that this front-end understands. */
const KNOWN_RING_FEATURES = mask(
  ringFeatures.INDIRECT_DESC,
  ringFeatures.EVENT_IDX,
  ringFeatures.PROTOCOL_FEATURES,
  ringFeatures.VERSION_1,
);

/** Protocol features that this front-end understands. */
const KNOWN_PROTOCOL_FEATURES = mask(
  protocolFeatures.MQ,
  protocolFeatures.REPLY_ACK,
  protocolFeatures.BACKEND_REQ,
  protocolFeatures.CONFIG,
  protocolFeatures.RESET_DEVICE,
  protocolFeatures.CONFIGURE_MEM_SLOTS,
  protocolFeatures.STATUS,
);

/** How a front-end presents itself. */
export interface FrontEndOptions {
  /** Features of the device type to accept when they are offered. None by default. */
  readonly deviceFeatures?: bigint;
  /** Features of the ring not to accept. */
  readonly withoutFeatures?: bigint;
  /** Protocol features not to accept. */
  readonly withoutProtocolFeatures?: bigint;
  /** Serves the messages of the back-end channel; CONFIG_CHANGE_MSG by {@link FrontEnd.onConfigChange} otherwise. */
  readonly channel?: Handlers<typeof backendMessages>;
  /** Called with every message that crosses the connection. */
  readonly tap?: Tap;
  /** Waiting; the process's reactor by default. */
  readonly reactor?: Reactor;
}

/** How a ring is set up. */
export interface QueueOptions {
  /** Entries, a power of two; 128 by default. */
  readonly size?: number;
  /** Most descriptors of a request, when each is to have a table of its own (INDIRECT_DESC). */
  readonly tableSize?: number;
}

/** A front-end: what a virtual machine monitor is to a back-end. */
export class FrontEnd {
  /** Features accepted by both sides, of ring and device. */
  features = 0n;
  /** Protocol features accepted by both sides. */
  protocolFeatures = 0n;
  /** Called when the back-end says that the configuration space has changed. */
  onConfigChange: () => void = () => {};
  /** Called once when the connection has ended, with a reason unless the back-end just left. */
  onEnd: (error: unknown) => void = () => {};
  readonly #requester: Requester<typeof frontendMessages>;
  readonly #reactor: Reactor;
  readonly #options: FrontEndOptions;
  readonly #queues = new Set<DriverQueue>();
  readonly #memories: SharedMemory[] = [];
  #channel: Responder<typeof backendMessages> | undefined;

  /** Takes over a connected socket. {@link FrontEnd.connect} also negotiates. */
  constructor(fd: number, options: FrontEndOptions = {}) {
    this.#options = options;
    this.#reactor = options.reactor ?? Reactor.shared();
    const connection = new Connection(fd, frontendMessages);
    connection.tap = options.tap;
    this.#requester = new Requester(connection, frontendMessages, this.#reactor, (error) => this.#end(error));
  }

  /**
   * Connects to a back-end and negotiates: features, protocol features, owner and back-end channel.
   *
   * @throws {OsError} when nobody listens
   * @throws {ProtocolError} when the back-end does not answer by the rules
   */
  static async connect(socketPath: string, options: FrontEndOptions = {}): Promise<FrontEnd> {
    const frontEnd = new FrontEnd(connect(socketPath), options);
    try {
      await frontEnd.negotiate();
    } catch (error) {
      frontEnd.close();
      throw error;
    }
    return frontEnd;
  }

  /** The connection, for what the methods do not cover. */
  get connection(): Connection {
    return this.#requester.connection;
  }

  /** Whether a protocol feature was negotiated. */
  negotiated(feature: ProtocolFeature): boolean {
    return has(this.protocolFeatures, protocolFeatures[feature]);
  }

  /**
   * Sends any message of the table.
   *
   * @param fds the back-end gets copies
   * @throws {ProtocolError} when the back-end says that it failed, answers wrongly or leaves
   */
  request<K extends FrontendMessage>(
    name: K,
    payload: PayloadOf<(typeof frontendMessages)[K]>,
    fds: readonly number[] = [],
  ): Promise<Answer<ReplyOf<(typeof frontendMessages)[K]>>> {
    return this.#requester.request(name, payload, fds);
  }

  /** The first messages of a session. */
  async negotiate(): Promise<void> {
    const { deviceFeatures = 0n, withoutFeatures = 0n, withoutProtocolFeatures = 0n } = this.#options;
    const { value: offered } = await this.request("GET_FEATURES", undefined);
    if (has(offered, ringFeatures.PROTOCOL_FEATURES)) {
      const { value } = await this.request("GET_PROTOCOL_FEATURES", undefined);
      this.protocolFeatures = value & KNOWN_PROTOCOL_FEATURES & ~withoutProtocolFeatures;
      await this.request("SET_PROTOCOL_FEATURES", this.protocolFeatures);
      this.#requester.replyAck = this.negotiated("REPLY_ACK");
    }
    await this.request("SET_OWNER", undefined);
    this.features = offered & (KNOWN_RING_FEATURES | deviceFeatures) & ~withoutFeatures;
    if (this.negotiated("BACKEND_REQ")) await this.#openChannel();
    await this.request("SET_FEATURES", this.features);
    if (this.negotiated("STATUS")) {
      const { ACKNOWLEDGE, DRIVER, FEATURES_OK } = DeviceStatus;
      await this.request("SET_STATUS", BigInt(ACKNOWLEDGE | DRIVER | FEATURES_OK));
    }
  }

  async #openChannel(): Promise<void> {
    const [ours, theirs] = socketPair();
    const handlers: Handlers<typeof backendMessages> = {
      CONFIG_CHANGE_MSG: () => this.onConfigChange(),
      ...this.#options.channel,
    };
    this.#channel = new Responder(
      new Connection(ours, backendMessages),
      backendMessages,
      handlers,
      this.#reactor,
      {
        replyAck: () => this.negotiated("REPLY_ACK"),
        refuse: () => undefined,
        onFailure: () => {},
        onEnd: () => {},
      },
    );
    try {
      await this.request("SET_BACKEND_REQ_FD", undefined, [theirs]);
    } finally {
      close(theirs);
    }
  }

  /** Shares memory, in addition to what is shared already. The back-end loses it when the connection ends. */
  async shareMemory(memory: SharedMemory): Promise<void> {
    this.#memories.push(memory);
    const region = (each: SharedMemory) => ({
      guestAddress: BigInt(each.guestAddress),
      size: BigInt(each.byteLength),
      userAddress: each.userAddress,
      mmapOffset: 0n,
    });
    if (this.negotiated("CONFIGURE_MEM_SLOTS")) {
      await this.request("ADD_MEM_REG", region(memory), [memory.fd]);
    } else {
      await this.request("SET_MEM_TABLE", this.#memories.map(region), this.#memories.map(({ fd }) => fd));
    }
  }

  /** Sets a ring up in shared memory and starts it. */
  async startQueue(index: number, memory: SharedMemory, options: QueueOptions = {}): Promise<DriverQueue> {
    const ring = new DriverRing(memory, {
      size: options.size ?? 128,
      eventIdx: has(this.features, ringFeatures.EVENT_IDX),
      tableSize: options.tableSize,
    });
    const queue = new DriverQueue(index, ring, this.#reactor);
    this.#queues.add(queue);
    const which = { index, noDescriptor: false };
    await this.request("SET_VRING_NUM", { index, num: ring.size });
    await this.request("SET_VRING_BASE", { index, num: ring.base });
    await this.request("SET_VRING_ADDR", {
      index,
      flags: 0,
      descriptor: ring.descriptor.userAddress,
      used: ring.used.userAddress,
      available: ring.available.userAddress,
      log: 0n,
    });
    await this.request("SET_VRING_ERR", which, [queue.error]);
    await this.request("SET_VRING_CALL", which, [queue.call]);
    await this.request("SET_VRING_KICK", which, [queue.kick]);
    if (has(this.features, ringFeatures.PROTOCOL_FEATURES)) {
      await this.request("SET_VRING_ENABLE", { index, num: 1 });
    }
    return queue;
  }

  /** Tells the back-end that the driver is up, after all rings were started. */
  async driverOk(): Promise<void> {
    if (!this.negotiated("STATUS")) return;
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DeviceStatus;
    await this.request("SET_STATUS", BigInt(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK));
  }

  /** Stops a ring: the back-end finishes what it has. Returns the position from which it would go on. */
  async stopQueue(queue: DriverQueue): Promise<number> {
    const { value } = await this.request("GET_VRING_BASE", { index: queue.index, num: 0 });
    queue.collect();
    this.#queues.delete(queue);
    queue.close();
    return value.num;
  }

  /** Reads a part of the configuration space. */
  async readConfig(offset: number, length: number): Promise<Uint8Array> {
    const { value } = await this.request("GET_CONFIG", { offset, flags: 0, data: new Uint8Array(length) });
    return value.data;
  }

  /** Writes a part of the configuration space. */
  async writeConfig(offset: number, data: Uint8Array): Promise<void> {
    await this.request("SET_CONFIG", { offset, flags: 0, data });
  }

  /** Ends the connection; requests in flight fail. Shared memory stays the caller's. */
  close(): void {
    this.#requester.end();
  }

  #end(error: unknown): void {
    this.#channel?.end();
    for (const queue of this.#queues) queue.close(new Error("the connection with the back-end has ended"));
    this.#queues.clear();
    this.onEnd(error);
  }
}
