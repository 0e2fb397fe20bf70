/**
 * The client side: what a virtual machine monitor has with a back-end, over one connection or several.
 *
 * @module
 */

import { Reactor } from "../../ffi/reactor.ts";
import { connect } from "../../ffi/socket.ts";
import { ProtocolError } from "../protocol/error.ts";
import { DeviceStatus, has, type ProtocolFeature, ringFeatures } from "../protocol/features.ts";
import type {
  DescriptorsOf,
  FrontendMessage,
  frontendMessages,
  PayloadOf,
  ReplyOf,
} from "../protocol/messages.ts";
import type { MemoryRegion } from "../protocol/payloads.ts";
import type { Endianness } from "../protocol/struct.ts";
import type { Connection } from "../transport/connection.ts";
import type { Answer } from "../transport/requester.ts";
import { ConfigMemory } from "./config_memory.ts";
import { loadState, saveState } from "./device_state.ts";
import { DriverQueue } from "./driver_queue.ts";
import type { GuestRing } from "./guest_ring.ts";
import { Link } from "./link.ts";
import { MemoryTable, type SharedRegion } from "./memory_table.ts";
import { type FrontEndOptions, type QueueOptions, wishesOf } from "./options.ts";
import { PackedDriverRing } from "./packed_driver_ring.ts";
import { RingTable } from "./ring_table.ts";
import { FrontEndSession } from "./session.ts";
import type { SharedMemory } from "./shared_memory.ts";
import { SplitDriverRing } from "./split_driver_ring.ts";

/**
 * A front-end: what a virtual machine monitor is to a back-end. It remembers what it has told the back-end, so that it can
 * tell it to another one.
 */
export class FrontEnd {
  /** Called when the back-end says that the configuration space has changed, or a new back-end has another. */
  onConfigChange: () => void = () => {};
  /** Called once when it has ended for good, with a reason unless the back-end just left or {@link close} was called. */
  onEnd: (error: unknown) => void = () => {};
  /** Called when the connection has ended and is to be made again. */
  onDisconnect: (error: unknown) => void = () => {};
  /** Called when a new back-end has got everything. What was sent by {@link request} alone is not part of that. */
  onReconnect: () => void = () => {};
  /** Called when a message of the back-end channel was refused, or its handler has failed. */
  onChannelFailure: (error: unknown) => void = () => {};
  readonly #dial: () => number;
  readonly #options: FrontEndOptions;
  readonly #reactor: Reactor;
  readonly #memory = new MemoryTable();
  readonly #config = new ConfigMemory();
  readonly #rings = new RingTable();
  readonly #link: Link;
  #driverOk = false;

  private constructor(dial: () => number, options: FrontEndOptions) {
    this.#dial = dial;
    this.#options = options;
    this.#reactor = options.reactor ?? Reactor.shared();
    this.#link = new Link(options.reconnect, {
      open: () => this.#open(),
      replay: (session) => this.#replay(session),
      onDisconnect: (error) => this.onDisconnect(error),
      onReconnect: () => {
        this.#rings.connected();
        this.onReconnect();
      },
      onOver: (error, reason) => {
        this.#rings.close(reason);
        this.onEnd(error);
      },
      onMistake: (error) => this.#reactor.onError(error),
    });
  }

  /**
   * Connects to a back-end and negotiates: features, protocol features, owner and back-end channel.
   *
   * @throws {OsError} when nobody listens
   * @throws {ProtocolError} when the back-end does not answer by the rules
   */
  static connect(socketPath: string, options: FrontEndOptions = {}): Promise<FrontEnd> {
    return FrontEnd.dial(() => connect(socketPath), options);
  }

  /**
   * The same for sockets that come by another way, as where the back-end connects to the front-end.
   *
   * @param socket gives a connected Unix stream socket that does not block, at each call another; it is taken over
   */
  static async dial(socket: () => number, options: FrontEndOptions = {}): Promise<FrontEnd> {
    const frontEnd = new FrontEnd(socket, options);
    try {
      await frontEnd.#link.session.negotiate(wishesOf(options));
    } catch (error) {
      frontEnd.close();
      throw error;
    }
    return frontEnd;
  }

  #open(): FrontEndSession {
    return new FrontEndSession(this.#dial(), {
      reactor: this.#reactor,
      tap: this.#options.tap,
      channel: {
        CONFIG_CHANGE_MSG: () => this.onConfigChange(),
        VRING_CALL: ({ index }) => this.#rings.get(index)?.called?.(),
        VRING_ERR: ({ index }) => this.#rings.get(index)?.broken?.(),
        ...this.#options.channel,
      },
      onChannelFailure: (error) => this.onChannelFailure(error),
      onEnd: (session, error) => this.#link.lost(session, error),
    });
  }

  /** Features accepted by both sides, of ring and device. */
  get features(): bigint {
    return this.#link.session.features;
  }

  /** Protocol features accepted by both sides. */
  get protocolFeatures(): bigint {
    return this.#link.session.protocolFeatures;
  }

  /** The connection, for what the methods do not cover. There is another after {@link onReconnect}. */
  get connection(): Connection {
    return this.#link.session.connection;
  }

  /** Whether there is a connection, and a back-end that has been told everything. */
  get connected(): boolean {
    return this.#link.up;
  }

  /** Byte order of the driver's rings, requests and configuration space. */
  get endianness(): Endianness {
    return this.#options.endianness ?? "little";
  }

  /** Whether a protocol feature was negotiated. */
  negotiated(feature: ProtocolFeature): boolean {
    return this.#link.session.negotiated(feature);
  }

  /**
   * Sends any message of the table, and waits until the back-end has handled it: for its answer, for the acknowledgement
   * (REPLY_ACK), or else for the answer to a GET_FEATURES that is sent after it. While the back-end is away, waits for the
   * next. A message that is under way when the connection ends fails.
   *
   * Memory, rings, configuration and status have methods of their own, which remember what they have done for the next
   * back-end; this one does not.
   *
   * @param descriptors those that go with the message, as an array: one that must be there, some that may, or nothing; the
   *   back-end gets copies
   * @throws {ProtocolError} when the message may not be sent (its feature was not negotiated), the back-end says that it
   *   failed, answers wrongly or leaves
   */
  request<K extends FrontendMessage>(
    name: K,
    payload: PayloadOf<(typeof frontendMessages)[K]>,
    ...descriptors: DescriptorsOf<(typeof frontendMessages)[K]>
  ): Promise<Answer<ReplyOf<(typeof frontendMessages)[K]>>> {
    // At once, where that can be: messages are sent in the order of the calls.
    if (this.connected) return this.#link.session.request(name, payload, ...descriptors);
    return this.#link.ready().then((session) => session.request(name, payload, ...descriptors));
  }

  /** Shares memory, in addition to what is shared already. The file and the mapping stay the caller's. */
  async shareMemory(memory: SharedRegion): Promise<void> {
    await this.#link.apply((session) => this.#memory.add(session, memory));
  }

  /** Ends {@link shareMemory}. No ring and no request may still use it. */
  async unshareMemory(memory: SharedRegion): Promise<void> {
    await this.#link.apply((session) => this.#memory.remove(session, memory));
  }

  /**
   * Shares memory whose pages have not arrived yet, after POSTCOPY_LISTEN. The back-end does not touch it before
   * {@link acknowledgePostcopy}.
   *
   * @returns the region with the address that it has in the back-end: page faults are reported there
   */
  async shareMemoryPostcopy(memory: SharedRegion): Promise<MemoryRegion> {
    return await this.#memory.addPostcopy(await this.#link.ready(), memory);
  }

  /** Tells the back-end that its addresses are known: from here on its page faults are resolved. */
  async acknowledgePostcopy(): Promise<void> {
    await this.#memory.acknowledgePostcopy(await this.#link.ready());
  }

  /**
   * Has requests in flight recorded, so that the next back-end can go on with them when this one dies. Call it before the
   * first ring is started. A request that was carried out but not returned yet is carried out once more then.
   *
   * @param numQueues rings from number 0 on
   * @param queueSize the most entries of one
   * @returns whether the back-end can do that (INFLIGHT_SHMFD)
   * @throws {ProtocolError} when it fails to, as when it has fewer rings
   */
  async recordInflight(numQueues: number, queueSize: number): Promise<boolean> {
    if (!this.negotiated("INFLIGHT_SHMFD")) return false;
    await this.#link.ask((session) => this.#rings.record(session, numQueues, queueSize));
    return true;
  }

  /**
   * Starts a ring that somebody else drives, such as a guest. Its memory must be shared; its descriptors stay the caller's,
   * and must be open until it is stopped.
   *
   * @throws {ProtocolError} when the back-end refuses it
   */
  async startRing(ring: GuestRing): Promise<void> {
    await this.#link.ask((session) => this.#rings.prepare(session, ring));
    await this.#link.apply((session) => this.#rings.start(session, ring));
  }

  /** Stops a ring: the back-end finishes what it has. Returns the position from which it would go on. */
  async stopRing(index: number): Promise<number> {
    return await this.#link.ask((session) => this.#rings.stop(session, index));
  }

  /** Lays a ring out in shared memory, and starts it. */
  async startQueue(index: number, memory: SharedMemory, options: QueueOptions = {}): Promise<DriverQueue> {
    const Format = has(this.features, ringFeatures.RING_PACKED) ? PackedDriverRing : SplitDriverRing;
    const ring = new Format(memory, {
      size: options.size ?? 128,
      eventIdx: has(this.features, ringFeatures.EVENT_IDX),
      inOrder: has(this.features, ringFeatures.IN_ORDER),
      tableSize: options.tableSize,
      endianness: this.endianness,
    });
    const inBand = this.negotiated("INBAND_NOTIFICATIONS");
    const queue = new DriverQueue(index, ring, this.#reactor, {
      resubmit: options.resubmit,
      endianness: this.endianness,
      kickInBand: inBand ? () => this.#kickInBand(queue) : undefined,
    });
    try {
      await this.startRing(queue);
    } catch (error) {
      queue.close(error as Error);
      throw error;
    }
    return queue;
  }

  #kickInBand(queue: DriverQueue): void {
    // A new back-end looks at the ring anyway, and that the connection has ended is told elsewhere.
    if (!this.connected || this.#rings.get(queue.index) !== queue) return;
    const { index } = queue;
    this.#link.session.request("VRING_KICK", { index, num: 0 }).catch((error) => {
      if (this.connected && !this.#link.session.ended) queue.fail(error);
    });
  }

  /** Stops a ring of {@link startQueue}: the back-end finishes what it has. Returns the position that it has come to. */
  async stopQueue(queue: DriverQueue): Promise<number> {
    const base = await this.stopRing(queue.index);
    queue.collect();
    queue.close();
    return base;
  }

  /**
   * Brings the device back to the state at power-on (RESET_DEVICE). Memory stays shared; rings are gone, and requests in
   * flight fail.
   */
  async resetDevice(): Promise<void> {
    await this.#link.ask(async (session) => {
      await session.request("RESET_DEVICE", undefined);
      this.#driverOk = false;
      this.#config.reset();
      this.#rings.end(new Error("the device was reset"));
      await session.acceptFeatures();
    });
  }

  /** Tells the back-end that the driver is up, after all rings were started. */
  async driverOk(): Promise<void> {
    this.#driverOk = true;
    await this.#link.apply((session) => this.#sendDriverOk(session));
    this.#rings.connected();
  }

  async #sendDriverOk(session: FrontEndSession): Promise<void> {
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DeviceStatus;
    if (this.#driverOk) await session.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
  }

  /** Reads a part of the configuration space. */
  async readConfig(offset: number, length: number): Promise<Uint8Array> {
    return await this.#link.ask(async (session) => {
      const data = await readConfig(session, offset, length);
      this.#config.read(offset, data);
      return data;
    });
  }

  /** Writes a part of the configuration space. */
  async writeConfig(offset: number, data: Uint8Array): Promise<void> {
    const config = { offset, flags: 0, data };
    await this.#link.ask(async (session) => void await session.request("SET_CONFIG", config));
    this.#config.written(config);
  }

  /**
   * The device's internal state, for another back-end of the same kind (DEVICE_STATE). No ring may run; the device can go
   * on afterwards.
   *
   * @throws {ProtocolError} when the back-end cannot save it
   */
  async saveState(): Promise<Uint8Array> {
    return await saveState(await this.#link.ready(), this.#reactor);
  }

  /**
   * Gives a device the state that another has saved (DEVICE_STATE). No ring may run.
   *
   * @throws {ProtocolError} when the back-end does not take it
   */
  async loadState(state: Uint8Array): Promise<void> {
    await loadState(await this.#link.ready(), this.#reactor, state);
  }

  /** Ends the connection; requests in flight fail. Shared memory stays the caller's. */
  close(): void {
    this.#link.end(undefined, new Error("the connection with the back-end has ended: it was closed here"));
  }

  /** Tells a new back-end everything. */
  async #replay(session: FrontEndSession): Promise<void> {
    for (const config of this.#config.writes) await session.request("SET_CONFIG", config);
    await this.#memory.replay(session);
    await this.#rings.replay(session);
    await this.#sendDriverOk(session);
    const { range } = this.#config;
    if (range === undefined) return;
    const data = await readConfig(session, range.offset, range.length);
    if (this.#config.read(range.offset, data)) this.onConfigChange();
  }
}

/** GET_CONFIG; back-ends say failure by leaving the bytes out. */
async function readConfig(session: FrontEndSession, offset: number, length: number): Promise<Uint8Array> {
  const { value } = await session.request("GET_CONFIG", { offset, flags: 0, data: new Uint8Array(length) });
  if (value.data.length !== length) {
    throw new ProtocolError("GET_CONFIG", `expected ${length} bytes, got ${value.data.length}`);
  }
  return value.data;
}
