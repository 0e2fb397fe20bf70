/**
 * The client side: what a virtual machine monitor has with a back-end, over one connection or several.
 *
 * @module
 */

import { Reactor } from "../../ffi/reactor.ts";
import { connect } from "../../ffi/socket.ts";
import { ProtocolError } from "../protocol/error.ts";
import {
  DeviceStatus,
  has,
  mask,
  type ProtocolFeature,
  protocolFeatures,
  ringFeatures,
} from "../protocol/features.ts";
import type {
  backendMessages,
  DescriptorsOf,
  FrontendMessage,
  frontendMessages,
  PayloadOf,
  ReplyOf,
} from "../protocol/messages.ts";
import type { MemoryRegion } from "../protocol/payloads.ts";
import type { Connection, Tap } from "../transport/connection.ts";
import type { Answer } from "../transport/requester.ts";
import type { Handlers } from "../transport/responder.ts";
import { ConfigMemory } from "./config_memory.ts";
import { DriverQueue } from "./driver_queue.ts";
import type { GuestRing } from "./guest_ring.ts";
import { MemoryTable, type SharedRegion } from "./memory_table.ts";
import { PackedDriverRing } from "./packed_driver_ring.ts";
import { BackendGoneError, BackOff, type ReconnectOptions } from "./reconnect.ts";
import { RecordedInflight } from "./recorded_inflight.ts";
import { startRing, stopRing } from "./ring_start.ts";
import { FrontEndSession } from "./session.ts";
import type { SharedMemory } from "./shared_memory.ts";
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

/** Protocol features that this front-end takes when they are offered. */
const KNOWN_PROTOCOL_FEATURES = mask(
  protocolFeatures.MQ,
  protocolFeatures.REPLY_ACK,
  protocolFeatures.BACKEND_REQ,
  protocolFeatures.CONFIG,
  protocolFeatures.INFLIGHT_SHMFD,
  protocolFeatures.RESET_DEVICE,
  protocolFeatures.CONFIGURE_MEM_SLOTS,
  protocolFeatures.STATUS,
);

/** How a front-end presents itself. */
export interface FrontEndOptions {
  /** Features of the device type to accept when they are offered. None by default. */
  readonly deviceFeatures?: bigint;
  /** Further protocol features to accept when they are offered, by whoever sends and serves their messages. */
  readonly protocolFeatures?: bigint;
  /** Features of the ring not to accept. */
  readonly withoutFeatures?: bigint;
  /** Protocol features not to accept. */
  readonly withoutProtocolFeatures?: bigint;
  /**
   * Serves the messages of the back-end channel. A message without a handler is answered as failed, but for
   * CONFIG_CHANGE_MSG ({@link FrontEnd.onConfigChange}), VRING_CALL and VRING_ERR (the rings themselves).
   */
  readonly channel?: Handlers<typeof backendMessages>;
  /** Called with every message that crosses the connection. */
  readonly tap?: Tap;
  /** Connects again when the connection has ended, and goes on where that was. Not by default. */
  readonly reconnect?: ReconnectOptions;
  /** Waiting; the process's reactor by default. */
  readonly reactor?: Reactor;
}

/** How a ring is set up that this process drives. */
export interface QueueOptions {
  /** Entries, a power of two unless RING_PACKED was negotiated; 128 by default. */
  readonly size?: number;
  /** Most descriptors of a request, when each is to have a table of its own (INDIRECT_DESC). */
  readonly tableSize?: number;
  /**
   * Whether requests may be carried out twice, see {@link DriverQueueOptions.resubmit}: so it is with those of a disk, not
   * with those of a file system or a stream. No by default.
   */
  readonly resubmit?: boolean;
}

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
  readonly #rings = new Map<number, GuestRing>();
  /** Where the rings stand by the in-flight buffer, as far as it was used with them: known when they are stopped. */
  readonly #recordedRings = new Map<number, number | undefined>();
  #inflight: RecordedInflight | undefined;
  /** The connection; the one that has ended while there is none. */
  #session: FrontEndSession;
  /** A connection to a new back-end, which has not been told everything. */
  #attempt: FrontEndSession | undefined;
  #driverOk = false;
  /** Why it has ended. */
  #over: Error | undefined;
  #absence: { readonly backOff: BackOff; readonly end: Promise<void> } | undefined;
  #delay = 0;
  #connectedAt = 0;

  private constructor(dial: () => number, options: FrontEndOptions) {
    this.#dial = dial;
    this.#options = options;
    this.#reactor = options.reactor ?? Reactor.shared();
    this.#session = this.#open();
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
    const { deviceFeatures = 0n, withoutFeatures = 0n, withoutProtocolFeatures = 0n } = options;
    const known = KNOWN_PROTOCOL_FEATURES | (options.protocolFeatures ?? 0n);
    try {
      await frontEnd.#session.negotiate({
        features: (KNOWN_RING_FEATURES | deviceFeatures) & ~withoutFeatures,
        protocolFeatures: known & ~withoutProtocolFeatures,
        all: false,
      });
    } catch (error) {
      frontEnd.close();
      throw error;
    }
    return frontEnd;
  }

  #open(): FrontEndSession {
    const session = new FrontEndSession(this.#dial(), {
      reactor: this.#reactor,
      tap: this.#options.tap,
      channel: {
        CONFIG_CHANGE_MSG: () => this.onConfigChange(),
        VRING_CALL: ({ index }) => this.#rings.get(index)?.called?.(),
        VRING_ERR: ({ index }) => this.#rings.get(index)?.broken?.(),
        ...this.#options.channel,
      },
      onChannelFailure: (error) => this.onChannelFailure(error),
      onEnd: (session, error) => this.#lost(session, error),
    });
    this.#connectedAt = performance.now();
    return session;
  }

  /** Features accepted by both sides, of ring and device. */
  get features(): bigint {
    return this.#session.features;
  }

  /** Protocol features accepted by both sides. */
  get protocolFeatures(): bigint {
    return this.#session.protocolFeatures;
  }

  /** The connection, for what the methods do not cover. There is another after {@link onReconnect}. */
  get connection(): Connection {
    return this.#session.connection;
  }

  /** Whether there is a connection, and a back-end that has been told everything. */
  get connected(): boolean {
    return this.#over === undefined && this.#absence === undefined;
  }

  /** Whether a protocol feature was negotiated. */
  negotiated(feature: ProtocolFeature): boolean {
    return this.#session.negotiated(feature);
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
    if (this.connected) return this.#session.request(name, payload, ...descriptors);
    return this.#ready().then((session) => session.request(name, payload, ...descriptors));
  }

  /** The session, as soon as its back-end has been told everything. */
  async #ready(): Promise<FrontEndSession> {
    await this.#absence?.end;
    if (this.#over !== undefined) throw this.#over;
    return this.#session;
  }

  /**
   * Does something that a new back-end would be told as well: when the connection ends in the middle, that counts.
   */
  async #apply(what: (session: FrontEndSession) => Promise<void>): Promise<void> {
    const session = await this.#ready();
    try {
      await what(session);
    } catch (error) {
      if (!session.ended || this.#absence === undefined) throw error;
      await this.#ready();
    }
  }

  /** Does something that has an answer: when the connection ends in the middle, the next back-end is asked. */
  async #ask<T>(what: (session: FrontEndSession) => Promise<T>): Promise<T> {
    for (;;) {
      const session = await this.#ready();
      try {
        return await what(session);
      } catch (error) {
        if (!session.ended || this.#absence === undefined) throw error;
      }
    }
  }

  /** Shares memory, in addition to what is shared already. The file and the mapping stay the caller's. */
  async shareMemory(memory: SharedRegion): Promise<void> {
    await this.#apply((session) => this.#memory.add(session, memory));
  }

  /** Ends {@link shareMemory}. No ring and no request may still use it. */
  async unshareMemory(memory: SharedRegion): Promise<void> {
    await this.#apply((session) => this.#memory.remove(session, memory));
  }

  /**
   * Shares memory whose pages have not arrived yet, after POSTCOPY_LISTEN. The back-end does not touch it before
   * {@link acknowledgePostcopy}.
   *
   * @returns the region with the address that it has in the back-end: page faults are reported there
   */
  async shareMemoryPostcopy(memory: SharedRegion): Promise<MemoryRegion> {
    return await this.#memory.addPostcopy(await this.#ready(), memory);
  }

  /** Tells the back-end that its addresses are known: from here on its page faults are resolved. */
  async acknowledgePostcopy(): Promise<void> {
    await this.#memory.acknowledgePostcopy(await this.#ready());
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
    await this.#ask(async (session) => {
      await this.#replaceInflight(session, await RecordedInflight.make(session, numQueues, queueSize));
    });
    return true;
  }

  async #replaceInflight(session: FrontEndSession, inflight: RecordedInflight): Promise<void> {
    this.#inflight?.close();
    this.#inflight = inflight;
    this.#recordedRings.clear();
    await inflight.give(session);
  }

  /** The buffer knows where a ring was stopped; for one that starts anew there must be another. */
  async #freshInflight(session: FrontEndSession, { index, base }: GuestRing): Promise<void> {
    if (this.#inflight === undefined || !this.#recordedRings.has(index)) return;
    if (this.#recordedRings.get(index) === base) return;
    if (this.#rings.size > 0) {
      throw new Error(`ring ${index} was used before: stop the other rings, so that records can start anew`);
    }
    await this.#replaceInflight(session, await this.#inflight.renew(session));
  }

  /**
   * Starts a ring that somebody else drives, such as a guest. Its memory must be shared; its descriptors stay the caller's,
   * and must be open until it is stopped.
   *
   * @throws {ProtocolError} when the back-end refuses it
   */
  async startRing(ring: GuestRing): Promise<void> {
    const { index } = ring;
    if (this.#rings.has(index)) throw new Error(`ring ${index} is started already`);
    await this.#ask((session) => this.#freshInflight(session, ring));
    await this.#apply(async (session) => {
      this.#rings.set(index, ring);
      if (this.#inflight?.covers(index, ring.size)) this.#recordedRings.set(index, undefined);
      try {
        await startRing(session, ring);
      } catch (error) {
        if (!session.ended) this.#rings.delete(index);
        throw error;
      }
    });
  }

  /** Stops a ring: the back-end finishes what it has. Returns the position from which it would go on. */
  async stopRing(index: number): Promise<number> {
    return await this.#ask(async (session) => {
      const base = await stopRing(session, index);
      this.#rings.delete(index);
      if (this.#recordedRings.has(index)) this.#recordedRings.set(index, base);
      return base;
    });
  }

  /** Lays a ring out in shared memory, and starts it. */
  async startQueue(index: number, memory: SharedMemory, options: QueueOptions = {}): Promise<DriverQueue> {
    const Format = has(this.features, ringFeatures.RING_PACKED) ? PackedDriverRing : SplitDriverRing;
    const ring = new Format(memory, {
      size: options.size ?? 128,
      eventIdx: has(this.features, ringFeatures.EVENT_IDX),
      inOrder: has(this.features, ringFeatures.IN_ORDER),
      tableSize: options.tableSize,
    });
    const inBand = this.negotiated("INBAND_NOTIFICATIONS");
    const queue = new DriverQueue(index, ring, this.#reactor, {
      resubmit: options.resubmit,
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
    this.#session.request("VRING_KICK", { index, num: 0 }).catch((error) => {
      if (this.connected && !this.#session.ended) queue.fail(error);
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
    await this.#ask(async (session) => {
      await session.request("RESET_DEVICE", undefined);
      this.#driverOk = false;
      this.#config.reset();
      this.#endRings(new Error("the device was reset"));
      await session.acceptFeatures();
    });
  }

  /** Tells the back-end that the driver is up, after all rings were started. */
  async driverOk(): Promise<void> {
    this.#driverOk = true;
    await this.#apply((session) => this.#sendDriverOk(session));
    for (const ring of this.#rings.values()) ring.connected?.();
  }

  async #sendDriverOk(session: FrontEndSession): Promise<void> {
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DeviceStatus;
    if (this.#driverOk) await session.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
  }

  /** Reads a part of the configuration space. */
  async readConfig(offset: number, length: number): Promise<Uint8Array> {
    return await this.#ask(async (session) => {
      const data = await readConfig(session, offset, length);
      this.#config.read(offset, data);
      return data;
    });
  }

  /** Writes a part of the configuration space. */
  async writeConfig(offset: number, data: Uint8Array): Promise<void> {
    const config = { offset, flags: 0, data };
    await this.#ask(async (session) => void await session.request("SET_CONFIG", config));
    this.#config.written(config);
  }

  /** Ends the connection; requests in flight fail. Shared memory stays the caller's. */
  close(): void {
    this.#finish(undefined, new Error("the connection with the back-end has ended: it was closed here"));
  }

  #finish(error: unknown, reason: Error): void {
    if (this.#over !== undefined) return;
    this.#over = reason;
    this.#absence?.backOff.stop();
    this.#attempt?.end(error);
    this.#session.end(error);
    this.#endRings(reason);
    this.#inflight?.close();
    this.#inflight = undefined;
    this.onEnd(error);
  }

  #endRings(reason: Error): void {
    for (const ring of this.#rings.values()) ring.close?.(reason);
    this.#rings.clear();
  }

  /** A connection has ended. */
  #lost(session: FrontEndSession, error: unknown): void {
    if (session !== this.#session || this.#over !== undefined || this.#absence !== undefined) return;
    const { reconnect } = this.#options;
    if (reconnect === undefined) {
      const reason = new Error("the connection with the back-end has ended");
      reason.cause = error;
      return this.#finish(error, reason);
    }
    const { firstDelay = 10, longestDelay = 1000, patience = Infinity } = reconnect;
    // One that came and went at once is not worth hurrying for.
    const lasted = performance.now() - this.#connectedAt > longestDelay;
    this.#delay = lasted || this.#delay === 0 ? firstDelay : Math.min(2 * this.#delay, longestDelay);
    let last = error;
    const backOff = new BackOff({ firstDelay, longestDelay, patience }, this.#delay, () => {
      const gone = new BackendGoneError(patience, last);
      this.#finish(gone, gone);
    });
    const end = this.#reconnect(backOff, (failure) => last = failure);
    this.#absence = { backOff, end };
    this.onDisconnect(error);
  }

  /** Tries until there is a back-end that has been told everything, or it is no use. Never rejects. */
  async #reconnect(backOff: BackOff, onFailure: (error: unknown) => void): Promise<void> {
    const { features, protocolFeatures } = this.#session;
    while (!backOff.over) {
      await backOff.wait();
      if (backOff.over) return;
      let session: FrontEndSession | undefined;
      try {
        session = this.#attempt = this.#open();
        await session.negotiate({ features, protocolFeatures, all: true });
        await this.#replay(session);
        if (!backOff.over) this.#arrived(session, backOff);
      } catch (error) {
        onFailure(error);
        if (backOff.over) return;
        // Who has not answered may do so next time; who has answered no will do so again.
        if (session?.ended === false) return this.#finish(error, error as Error);
      }
    }
  }

  #arrived(session: FrontEndSession, backOff: BackOff): void {
    backOff.stop();
    this.#session = session;
    this.#attempt = this.#absence = undefined;
    // What was added since the ring was started has not been heard of.
    for (const ring of this.#rings.values()) ring.connected?.();
    this.onReconnect();
  }

  /** Tells a new back-end everything. */
  async #replay(session: FrontEndSession): Promise<void> {
    for (const config of this.#config.writes) await session.request("SET_CONFIG", config);
    await this.#memory.replay(session);
    await this.#inflight?.give(session);
    for (const ring of this.#rings.values()) {
      const recorded = this.#inflight?.covers(ring.index, ring.size) ?? false;
      if (ring.resume?.(recorded) !== false) await startRing(session, ring);
    }
    await this.#sendDriverOk(session);
    const { range } = this.#config;
    if (range !== undefined) {
      const data = await readConfig(session, range.offset, range.length);
      if (this.#config.read(range.offset, data)) this.onConfigChange();
    }
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
