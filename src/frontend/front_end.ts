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
import { ProtocolError } from "../protocol/error.ts";
import type { MemoryRegion } from "../protocol/payloads.ts";
import type { Endianness } from "../protocol/struct.ts";
import { Connection, type Tap } from "../transport/connection.ts";
import { type Handlers, Responder } from "../transport/responder.ts";
import { type Answer, Requester } from "../transport/requester.ts";
import { DriverQueue } from "./driver_queue.ts";
import { PackedDriverRing } from "./packed_driver_ring.ts";
import type { Piece, SharedMemory } from "./shared_memory.ts";
import { SplitDriverRing } from "./split_driver_ring.ts";

/**
 * Features of the ring that this front-end takes when they are offered. It also understands IN_ORDER, but that makes what is
 * done wait for what is not: who wants it says so ({@link FrontEndOptions.deviceFeatures}).
 */
const KNOWN_RING_FEATURES = mask(
  ringFeatures.INDIRECT_DESC,
  ringFeatures.EVENT_IDX,
  ringFeatures.PROTOCOL_FEATURES,
  ringFeatures.VERSION_1,
  ringFeatures.RING_PACKED,
);

/** Protocol features that this front-end understands. */
const KNOWN_PROTOCOL_FEATURES = mask(
  protocolFeatures.MQ,
  protocolFeatures.REPLY_ACK,
  protocolFeatures.BACKEND_REQ,
  protocolFeatures.CONFIG,
  protocolFeatures.RESET_DEVICE,
  protocolFeatures.CONFIGURE_MEM_SLOTS,
  protocolFeatures.CROSS_ENDIAN,
  protocolFeatures.STATUS,
);

/** What a legacy driver does not know of. */
const NOT_LEGACY = mask(ringFeatures.VERSION_1, ringFeatures.RING_PACKED);

/** How a front-end presents itself. */
export interface FrontEndOptions {
  /** Features of the device type to accept when they are offered. None by default. */
  readonly deviceFeatures?: bigint;
  /** Further protocol features to accept when they are offered, by whoever sends and serves their messages. */
  readonly protocolFeatures?: bigint;
  /**
   * Byte order of the driver. `"big"` is that of a legacy driver on a big-endian machine: it has split rings, without
   * VERSION_1. Little by default.
   */
  readonly endianness?: Endianness;
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
  /** Entries, a power of two unless RING_PACKED was negotiated; 128 by default. */
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

  /** Byte order of the driver's rings, requests and configuration space. */
  get endianness(): Endianness {
    return this.#options.endianness ?? "little";
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

  /**
   * The first messages of a session.
   *
   * @throws {ProtocolError} when the back-end does not answer by the rules, or is not for a driver of this byte order
   */
  async negotiate(): Promise<void> {
    const { deviceFeatures = 0n, withoutFeatures = 0n, withoutProtocolFeatures = 0n } = this.#options;
    const known = KNOWN_PROTOCOL_FEATURES | (this.#options.protocolFeatures ?? 0n);
    const { value: offered } = await this.request("GET_FEATURES", undefined);
    if (has(offered, ringFeatures.PROTOCOL_FEATURES)) {
      const { value } = await this.request("GET_PROTOCOL_FEATURES", undefined);
      this.protocolFeatures = value & known & ~withoutProtocolFeatures;
      await this.request("SET_PROTOCOL_FEATURES", this.protocolFeatures);
      this.#requester.replyAck = this.negotiated("REPLY_ACK");
    }
    await this.request("SET_OWNER", undefined);
    this.features = offered & (KNOWN_RING_FEATURES | deviceFeatures) & ~withoutFeatures;
    if (this.endianness === "big") {
      if (!this.negotiated("CROSS_ENDIAN")) {
        throw new ProtocolError("GET_PROTOCOL_FEATURES", "a big-endian driver needs CROSS_ENDIAN (bit 6)");
      }
      this.features &= ~NOT_LEGACY;
    }
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
    if (this.negotiated("CONFIGURE_MEM_SLOTS")) {
      await this.request("ADD_MEM_REG", this.#region(memory), [memory.fd]);
    } else {
      const regions = this.#memories.map((each) => this.#region(each));
      await this.request("SET_MEM_TABLE", regions, this.#memories.map(({ fd }) => fd));
    }
  }

  /**
   * Shares memory whose pages have not arrived yet, after POSTCOPY_LISTEN. The back-end does not touch it before
   * {@link acknowledgePostcopy}.
   *
   * @returns the region with the address that it has in the back-end: page faults are reported there
   */
  async shareMemoryPostcopy(memory: SharedMemory): Promise<MemoryRegion> {
    this.#memories.push(memory);
    if (this.negotiated("CONFIGURE_MEM_SLOTS")) {
      const answer = await this.#requester.exchange(
        "ADD_MEM_REG",
        this.#region(memory),
        [memory.fd],
        frontendMessages.ADD_MEM_REG.postcopyReply,
      );
      return answer.value as MemoryRegion;
    }
    const { value } = await this.#requester.exchange(
      "SET_MEM_TABLE",
      this.#memories.map((each) => this.#region(each)),
      this.#memories.map(({ fd }) => fd),
      frontendMessages.SET_MEM_TABLE.postcopyReply,
    );
    return (value as readonly MemoryRegion[])[this.#memories.length - 1];
  }

  /** Tells the back-end that its addresses are known: from here on its page faults are resolved. */
  async acknowledgePostcopy(): Promise<void> {
    if (this.negotiated("CONFIGURE_MEM_SLOTS")) {
      await this.#requester.exchange("ADD_MEM_REG", undefined, [], undefined);
    } else {
      await this.#requester.exchange("SET_MEM_TABLE", [], [], undefined);
    }
  }

  #region(memory: SharedMemory): MemoryRegion {
    return {
      guestAddress: BigInt(memory.guestAddress),
      size: BigInt(memory.byteLength),
      userAddress: this.negotiated("GPA_ADDRESSES") ? BigInt(memory.guestAddress) : memory.userAddress,
      mmapOffset: 0n,
    };
  }

  /** Sets a ring up in shared memory and starts it. */
  async startQueue(index: number, memory: SharedMemory, options: QueueOptions = {}): Promise<DriverQueue> {
    const Format = has(this.features, ringFeatures.RING_PACKED) ? PackedDriverRing : SplitDriverRing;
    const ring = new Format(memory, {
      size: options.size ?? 128,
      eventIdx: has(this.features, ringFeatures.EVENT_IDX),
      inOrder: has(this.features, ringFeatures.IN_ORDER),
      tableSize: options.tableSize,
      endianness: this.endianness,
    });
    const queue = new DriverQueue(index, ring, this.#reactor);
    this.#queues.add(queue);
    const which = { index, noDescriptor: false };
    await this.request("SET_VRING_NUM", { index, num: ring.size });
    await this.request("SET_VRING_BASE", { index, num: ring.base });
    if (this.endianness === "big") await this.request("SET_VRING_ENDIAN", { index, num: 1 });
    await this.request("SET_VRING_ADDR", {
      index,
      flags: 0,
      descriptor: this.#ringAddress(ring.descriptor),
      used: this.#ringAddress(ring.used),
      available: this.#ringAddress(ring.available),
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

  /** Ring addresses are this process's, or the guest's (vhost-user, "Ring addresses"); our IOMMU maps one to one. */
  #ringAddress({ guestAddress, userAddress }: Piece): bigint {
    const guest = this.negotiated("GPA_ADDRESSES") || has(this.features, ringFeatures.ACCESS_PLATFORM);
    return guest ? BigInt(guestAddress) : userAddress;
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
