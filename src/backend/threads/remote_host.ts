/**
 * Rings of a session in another thread.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import type { IotlbEntry } from "../../memory/iotlb.ts";
import { IotlbMiss } from "../../memory/iotlb.ts";
import type { Region } from "../../memory/region.ts";
import type { BackendMessage } from "../../protocol/messages.ts";
import type { Inflight, VringAddress } from "../../protocol/payloads.ts";
import type { Endianness } from "../../protocol/struct.ts";
import type { FrontEndLink } from "../device.ts";
import type { Limits } from "../limits.ts";
import type { RingEvents, RingHosting, RingPosition } from "../ring_host.ts";
import type { VringControl } from "../vring_control.ts";
import {
  type FromThread,
  packError,
  type RingEvent,
  type RingSeat,
  type RingStatus,
  unpack,
  unpackError,
} from "./messages.ts";
import type { RingThread, SessionInbox } from "./ring_thread.ts";

/** A ring that runs in another thread. What is said to it is said there, in order. */
export class RemoteVring implements VringControl {
  readonly index: number;
  /** As of the last answer. */
  status: RingStatus;
  #missing: IotlbMiss | undefined;
  #miss = 0;
  readonly #thread: RingThread;
  readonly #call: (method: string, ...args: unknown[]) => Promise<unknown>;

  /** A ring that is stopped and disabled. */
  constructor(
    index: number,
    thread: RingThread,
    call: (method: string, ...args: unknown[]) => Promise<unknown>,
  ) {
    this.index = index;
    this.#thread = thread;
    this.status = { index, started: false, active: false, endianness: "little", miss: 0 };
    this.#call = call;
  }

  get started(): boolean {
    return this.status.started;
  }

  get active(): boolean {
    return this.status.active;
  }

  get endianness(): Endianness {
    return this.status.endianness;
  }

  get missing(): IotlbMiss | undefined {
    return this.status.miss === this.#miss ? this.#missing : undefined;
  }

  /** It waits for an address. */
  waitsFor(iova: number, access: number, miss: number): IotlbMiss {
    this.#miss = miss;
    this.status = { ...this.status, miss };
    return this.#missing = new IotlbMiss(iova, access);
  }

  async setSize(size: number): Promise<void> {
    await this.#call("setSize", size);
  }

  async setAddress(address: VringAddress): Promise<void> {
    await this.#call("setAddress", address);
  }

  async setBase(base: number): Promise<void> {
    await this.#call("setBase", base);
  }

  async setEndianness(endianness: Endianness): Promise<void> {
    await this.#call("setEndianness", endianness);
  }

  async setEnabled(enabled: boolean): Promise<void> {
    await this.#call("setEnabled", enabled);
  }

  async start(kick: number): Promise<void> {
    await this.#give("start", kick);
  }

  async setCall(call: number): Promise<void> {
    await this.#give("setCall", call);
  }

  async setError(error: number): Promise<void> {
    await this.#give("setError", error);
  }

  async kickInBand(): Promise<void> {
    await this.#call("kickInBand");
  }

  async fail(miss: IotlbMiss, error: Error): Promise<void> {
    if (this.missing !== miss) return;
    const { miss: count } = this.status;
    this.#missing = undefined;
    await this.#call("fail", count, packError(error));
  }

  async stop(): Promise<number> {
    return await this.#call("stop") as number;
  }

  /** A descriptor goes along: it belongs to the ring's thread from then on. */
  async #give(method: string, fd: number): Promise<void> {
    if (this.#thread.failure !== undefined && fd >= 0) close(fd);
    await this.#call(method, fd);
  }
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** Those rings of a session that one thread runs. */
export class RemoteHost implements RingHosting, SessionInbox {
  readonly vrings: readonly RemoteVring[];
  /** Rejects when the thread cannot take part in the session. */
  readonly opened: Promise<unknown>;
  readonly #thread: RingThread;
  readonly #session: number;
  readonly #events: RingEvents;
  readonly #link: FrontEndLink;
  readonly #waiting = new Map<number, Waiting>();
  /** Regions that the thread uses. They stay mapped until it says that it does not. */
  readonly #lent = new Map<number, Region>();
  #calls = 0;
  #closing = false;
  #finished: Promise<void> = Promise.resolve();

  /** Opens a session in a thread. */
  constructor(
    thread: RingThread,
    session: number,
    rings: readonly RingSeat[],
    events: RingEvents,
    link: FrontEndLink,
    limits: Limits,
  ) {
    this.#thread = thread;
    this.#session = session;
    this.#events = events;
    this.#link = link;
    this.vrings = rings.map(({ index }) =>
      new RemoteVring(index, thread, (method, ...args) => this.#call(index, method, args))
    );
    thread.join(session, this);
    const id = ++this.#calls;
    this.opened = this.#expect(id);
    thread.post({ kind: "open", session, id, rings, limits });
  }

  #expect(id: number): Promise<unknown> {
    const { failure } = this.#thread;
    if (failure !== undefined) return Promise.reject(failure);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #call(ring: number, method: string, args: unknown[]): Promise<unknown> {
    const id = ++this.#calls;
    const outcome = this.#expect(id);
    this.#thread.post({ kind: "call", session: this.#session, id, ring, method, args });
    return outcome;
  }

  async #tell(method: string, ...args: unknown[]): Promise<void> {
    await this.#call(-1, method, args);
  }

  setFeatures(features: bigint): Promise<void> {
    return this.#tell("setFeatures", features);
  }

  setProtocol(features: bigint): Promise<void> {
    return this.#tell("setProtocol", features);
  }

  openLog(fd: number, offset: bigint, size: bigint): Promise<void> {
    return this.#tell("openLog", fd, offset, size);
  }

  setLogEvent(fd: number): Promise<void> {
    return this.#tell("setLogEvent", fd);
  }

  openInflight(inflight: Inflight, fd: number): Promise<void> {
    return this.#tell("openInflight", inflight, fd);
  }

  updateIotlb(entry: IotlbEntry): Promise<void> {
    return this.#tell("updateIotlb", entry);
  }

  invalidateIotlb(iova: number, size: number): Promise<void> {
    return this.#tell("invalidateIotlb", iova, size);
  }

  clearIotlb(): Promise<void> {
    return this.#tell("clearIotlb");
  }

  writeConfig(offset: number, data: Uint8Array, migration: boolean): Promise<void> {
    return this.#tell("writeConfig", offset, data, migration);
  }

  rewind(): Promise<void> {
    return this.#tell("rewind");
  }

  reset(): Promise<void> {
    return this.#tell("reset");
  }

  async freeze(): Promise<readonly RingPosition[]> {
    return await this.#call(-1, "freeze", []) as RingPosition[];
  }

  thaw(): Promise<void> {
    return this.#tell("thaw");
  }

  /** The memory table, as it is now. Resolves when the thread uses nothing else for what it takes from here on. */
  setMemory(regions: readonly Region[]): Promise<void> {
    for (const region of regions) {
      if (this.#lent.has(region.id)) continue;
      region.pin();
      this.#lent.set(region.id, region);
    }
    return this.#tell("setMemory", regions.map((region) => region.share()));
  }

  /**
   * The session is over. Resolves when the thread has let go of the rings and of all memory that no request uses; calls
   * that wait for a request never come to an end.
   */
  close(): Promise<void> {
    this.#closing = true;
    const closed = this.#tell("close").catch(() => {});
    this.#finished = this.#tell("finished").catch(() => {}).then(() => this.#leave());
    return closed;
  }

  /** Resolves when no handler has a request any more, after {@link close}. */
  finished(): Promise<void> {
    return this.#finished;
  }

  #leave(): void {
    this.#thread.leave(this.#session);
    this.#waiting.clear();
    this.#giveBack();
  }

  #giveBack(): void {
    for (const region of this.#lent.values()) region.unpin();
    this.#lent.clear();
  }

  receive(message: Parameters<SessionInbox["receive"]>[0]): void {
    switch (message.kind) {
      case "answer":
        return this.#answered(message);
      case "released":
        this.#lent.get(message.region)?.unpin();
        this.#lent.delete(message.region);
        return;
      case "request":
        return void this.#request(message);
      case "event":
        if (!this.#closing) this.#happened(message);
    }
  }

  lost(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    this.#giveBack();
    if (this.#closing) return;
    for (const { index, started } of this.vrings) if (started) void this.#events.onBroken(index, error);
  }

  #answered({ id, outcome, rings }: Extract<FromThread, { kind: "answer" }>): void {
    let running = false;
    for (const status of rings) {
      const vring = this.vrings.find(({ index }) => index === status.index);
      if (vring === undefined) continue;
      running ||= status.active && !vring.active;
      vring.status = status;
    }
    if (running && !this.#closing) this.#events.onRunning();
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    try {
      waiting?.resolve(unpack(outcome));
    } catch (error) {
      waiting?.reject(error);
    }
  }

  #happened(event: RingEvent): void {
    const { ring } = event;
    switch (event.event) {
      case "request failed":
        return this.#events.onRequestError(ring, unpackError(event.error));
      case "broken":
        void this.#events.onBroken(ring, unpackError(event.error), event.dump);
        return this.#thread.post({ kind: "answer", session: this.#session, id: event.id, outcome: {} });
      case "memory lost":
        return this.#events.onMemoryLost(unpackError(event.error));
      case "running":
        return this.#events.onRunning();
      case "rewound":
        return this.#events.onRewound();
      case "notify":
        return this.#events.notifyInBand(ring, event.message);
      case "missing": {
        const vring = this.vrings.find(({ index }) => index === ring);
        const miss = vring?.waitsFor(event.iova, event.access, event.miss);
        if (miss !== undefined) this.#events.onMiss(ring, miss);
      }
    }
  }

  async #request({ id, name, payload, fds }: Extract<FromThread, { kind: "request" }>): Promise<void> {
    const session = this.#session;
    try {
      const answer = await this.#link.request(name as BackendMessage, payload as never, fds);
      const value = { value: answer.value, fds: answer.fds.takeAll() };
      if (this.#closing) value.fds.forEach(close);
      else this.#thread.post({ kind: "answer", session, id, outcome: { value } });
    } catch (error) {
      this.#thread.post({ kind: "answer", session, id, outcome: { error: packError(error) } });
    }
  }
}
