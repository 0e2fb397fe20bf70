/**
 * What a session has negotiated and holds; the handlers of its messages work on it.
 *
 * @module
 */

import type { Reactor } from "../../ffi/reactor.ts";
import { userfaultfdAvailable } from "../../ffi/userfaultfd.ts";
import type { GuestMemory } from "../memory/guest_memory.ts";
import { FieldError } from "../protocol/error.ts";
import {
  DeviceStatus,
  has,
  mask,
  type ProtocolFeature,
  protocolFeatures,
  type RingFeature,
  ringFeatures,
} from "../protocol/features.ts";
import type { FrontendMessage, MessageRow } from "../protocol/messages.ts";
import type { Endianness } from "../protocol/struct.ts";
import { after, all, type Awaitable } from "./awaitable.ts";
import { BackChannel } from "./back_channel.ts";
import { IotlbMisses } from "./iotlb_misses.ts";
import type { Device, DeviceBehaviour, FrontEndLink } from "./device.ts";
import type { StateTransfer } from "./device_state.ts";
import type { BrokenRing } from "./broken_ring.ts";
import { defaultLimits, type Limits } from "./limits.ts";
import type { Log, LogAbout, LogLevel } from "./log.ts";
import { Postcopy } from "./postcopy.ts";
import { SharedWindows } from "./shared_windows.ts";
import { type RingEvents, RingHost, type RingHosting } from "./ring_host.ts";
import type { ServerMetrics } from "./server_metrics.ts";
import type { RemoteHost } from "./threads/remote_host.ts";
import type { ThreadPool } from "./threads/thread_pool.ts";
import type { VringControl } from "./vring_control.ts";

const RING_FEATURES: readonly RingFeature[] = [
  "LOG_ALL",
  "INDIRECT_DESC",
  "EVENT_IDX",
  "PROTOCOL_FEATURES",
  "VERSION_1",
  "RING_PACKED",
  "IN_ORDER",
];

const PROTOCOL_FEATURES: readonly ProtocolFeature[] = [
  "MQ",
  "LOG_SHMFD",
  "REPLY_ACK",
  "BACKEND_REQ",
  "BACKEND_SEND_FD",
  "INFLIGHT_SHMFD",
  "RESET_DEVICE",
  "CONFIGURE_MEM_SLOTS",
  "STATUS",
  "GET_VRING_BASE_INFLIGHT",
  "GPA_ADDRESSES",
];

/** What a session needs of its server. */
export interface SessionOptions {
  /** Waiting. */
  readonly reactor: Reactor;
  /** Where to write what happens. */
  readonly log: Log;
  /** How much the front-end may use; {@link defaultLimits} by default. */
  readonly limits?: Limits;
  /** Number of the session, from 1. */
  readonly number: number;
  /** Where to count. */
  readonly metrics: ServerMetrics;
  /** Whether to offer ACCESS_PLATFORM: the driver's addresses may go through an IOMMU. */
  readonly iommu?: boolean;
  /** Whether to offer INBAND_NOTIFICATIONS. */
  readonly inBandNotifications?: boolean;
  /** Whether the session can be handed over: what the front-end says is written down then. */
  readonly handover?: boolean;
  /**
   * Threads that run the rings, in place of this one.
   *
   * @ignore
   */
  readonly threads?: ThreadPool;
  /** Called once when the front-end has left or was dropped. */
  onEnd(): void;
}

/** Protocol features that only some devices have. */
function deviceProtocolFeatures(behaviour: DeviceBehaviour): ProtocolFeature[] {
  const having: readonly (readonly [ProtocolFeature, unknown])[] = [
    ["CONFIG", behaviour.config],
    ["CROSS_ENDIAN", behaviour.crossEndian],
    ["DEVICE_STATE", behaviour.state],
    ["SHMEM", behaviour.sharedMemory],
    ["SHARED_OBJECT", behaviour.sharedObject],
    ["RARP", behaviour.announce],
    ["MTU", behaviour.setMtu],
    ["CRYPTO_SESSION", behaviour.crypto],
    ["HOST_NOTIFIER", behaviour.hostNotifiers],
  ];
  return having.flatMap(([feature, has]) => has === undefined || has === false ? [] : [feature]);
}

/** One session. */
export class SessionState {
  /** The device. */
  readonly device: Device;
  /** What it does for this front-end. */
  readonly behaviour: DeviceBehaviour;
  /** Waiting. */
  readonly reactor: Reactor;
  /** How much the front-end may use. */
  readonly limits: Limits;
  /** What is negotiated and shared; and the rings, unless other threads run them. */
  readonly host: RingHost;
  /** Those who run the rings in other threads. */
  readonly remoteHosts: readonly RemoteHost[];
  /** The rings by index. */
  readonly vrings: readonly VringControl[];
  /** Requests to the front-end. */
  readonly channel: BackChannel;
  /** Files shown to the guest. */
  readonly windows: SharedWindows;
  /** A postcopy migration that arrives. */
  readonly postcopy = new Postcopy();
  /** Features offered; constant for the session. */
  readonly offered: bigint;
  /** Protocol features offered; constant for the session. */
  readonly offeredProtocol: bigint;
  /** Called when there can be no going on. */
  onFatal: (error: unknown) => void = () => {};
  /** The device status. */
  status = 0n;
  /** The last transfer of the device's state. */
  transfer: StateTransfer | undefined;
  /** Whether another process may be going on with the session: its rings rest, and the front-end is asked for nothing. */
  frozen = false;
  /** Called when the device was reset because a driver begins anew. */
  onRewound: () => void = () => {};
  /** Addresses that rings wait for. */
  readonly #iotlbMisses: IotlbMisses;
  readonly #log: Log;
  readonly #number: number;
  readonly #metrics: ServerMetrics;
  /** Told of each ring that breaks, after the log. */
  onBroken: ((broken: BrokenRing, error: unknown) => void) | undefined;
  #configPending = false;
  /** Whether it is known that a driver begins anew. */
  #anew = false;

  /** A session at its start. */
  constructor(device: Device, options: SessionOptions) {
    const { reactor, log, number, metrics, iommu = false, inBandNotifications = false, threads } = options;
    this.device = device;
    const limits = this.limits = options.limits ?? defaultLimits;
    this.reactor = reactor;
    this.#log = log;
    this.#number = number;
    this.#metrics = metrics;
    this.channel = new BackChannel({
      reactor,
      negotiated: (feature) => this.negotiated(feature),
      up: () => this.#up(),
      answers: limits.answers,
      onError: (error) =>
        this.log("warning", "the back-end channel is closed", error, { event: "channel.failed" }),
    });
    this.#iotlbMisses = new IotlbMisses(
      this.channel,
      () => this.host.iotlb,
      (text) => this.log("warning", text, undefined, { event: "iotlb.slow" }),
    );
    const sizes = new Map<number, number>();
    this.windows = new SharedWindows(sizes, this.channel);
    const link: FrontEndLink = {
      negotiated: (feature) => this.negotiated(feature),
      request: (name, payload, fds) => this.channel.request(name, payload, fds),
      windows: this.windows,
    };
    this.behaviour = device.connect(link);
    for (const [id, size] of this.behaviour.sharedMemory ?? []) sizes.set(id, size);
    const ringNames: RingFeature[] = [...RING_FEATURES, ...(iommu ? ["ACCESS_PLATFORM" as const] : [])];
    this.offered = (device.definition.features ?? 0n) | mask(...ringNames.map((name) => ringFeatures[name]));
    const protocolNames: ProtocolFeature[] = [
      ...PROTOCOL_FEATURES,
      ...deviceProtocolFeatures(this.behaviour),
      ...(userfaultfdAvailable() ? ["PAGEFAULT" as const] : []),
      ...(inBandNotifications ? ["INBAND_NOTIFICATIONS" as const] : []),
    ];
    this.offeredProtocol = mask(...protocolNames.map((name) => protocolFeatures[name]));
    const events: RingEvents = {
      onMiss: (index, miss) => this.#iotlbMisses.ask(this.vrings[index], miss),
      notifyInBand: (index, message) => this.#notifyInBand(index, message),
      onRunning: () => this.#onRunning(),
      onRewound: () => this.#onRewound(),
      onRequestError: (index, error) => this.#onRequestError(index, error),
      onBroken: (index, error, dump) => this.#onBroken(index, error, dump),
      onMemoryLost: (error) => this.onFatal(error),
    };
    const indices = this.behaviour.queues.map((_, index) => index).slice(0, limits.rings);
    const counters = (index: number) => metrics.ring(index);
    const own = threads === undefined ? indices : [];
    this.host = new RingHost(this.behaviour, own, reactor, events, limits, counters);
    this.remoteHosts = threads?.open(this.behaviour, events, link, limits, counters) ?? [];
    this.vrings = [...this.host.vrings, ...this.remoteHosts.flatMap(({ vrings }) => vrings)]
      .sort((a, b) => a.index - b.index);
  }

  /** Writes about what happens, in this session. */
  log(
    level: LogLevel,
    text: string,
    error: unknown,
    about: Omit<LogAbout, "device" | "session">,
  ): void {
    const { name } = this.device;
    this.#log(level, `${name}: ${text}`, error, { device: name, session: this.#number, ...about });
  }

  /** A message could not be done, and its answer cannot say why. */
  messageFailed(message: FrontendMessage, text: string, error?: unknown, level: LogLevel = "warning"): void {
    this.log(level, `${message}${text}`, error, { event: "message.failed", fields: { message } });
  }

  /** Whether a protocol feature was negotiated. */
  negotiated(feature: ProtocolFeature): boolean {
    // The device may ask before there is one.
    const host: RingHost | undefined = this.host;
    return host?.negotiated(feature) ?? false;
  }

  /** Whether the driver has accepted a feature. */
  accepted(feature: RingFeature): boolean {
    return this.host.accepted(feature);
  }

  /** Guest memory. */
  get memory(): GuestMemory {
    return this.host.memory;
  }

  /** Has something done by everyone who runs rings, here first: what is refused here reaches nobody else. */
  everywhere(what: (host: RingHosting) => Awaitable<void>): Awaitable<void> {
    return after(what(this.host), () => all(this.remoteHosts.map(what)));
  }

  /** Changes the memory table, by a function that says whether it has. No device holds a chain meanwhile. */
  changeMemory(change: () => boolean): Awaitable<void> {
    this.host.changeMemory(change);
    return this.shareMemory();
  }

  /** Tells other threads what guest memory there is. What has gone is unmapped when they do not use it any more. */
  shareMemory(): Awaitable<void> {
    return all(this.remoteHosts.map((host) => host.setMemory(this.memory.regions)));
  }

  /** Why a message may not be sent in this session, or `undefined` when it may. */
  refuse({ requires, requiresRing }: MessageRow): string | undefined {
    if (requires !== undefined && !this.negotiated(requires)) {
      return `protocol feature ${requires} was not negotiated`;
    }
    // Some are sent before SET_FEATURES (QEMU's net sends SET_VRING_ENABLE), so the offer decides.
    if (requiresRing !== undefined && !has(this.offered, ringFeatures[requiresRing])) {
      return `feature ${requiresRing} is not offered`;
    }
    return undefined;
  }

  /**
   * A ring.
   *
   * @throws {FieldError} when the device has none of this index
   */
  vring(index: number): VringControl {
    const vring = this.vrings[index];
    if (vring === undefined) throw new FieldError("ring", `0 to ${this.vrings.length - 1}`, index);
    return vring;
  }

  /** A ring has stopped. While all do, QEMU does not tell what its IOMMU unmaps: nothing that is known can be relied on. */
  vringStopped(): Awaitable<void> {
    if (!this.vrings.some((vring) => vring.started)) return this.everywhere((host) => host.clearIotlb());
  }

  /** Byte order of the driver: little, unless it is a legacy one that has said otherwise. */
  get endianness(): Endianness {
    return this.vrings.some(({ endianness }) => endianness === "big") ? "big" : "little";
  }

  /** SET_VRING_ENDIAN. The fields of the configuration space turn around with the first ring, which nobody else can know. */
  setEndianness(index: number, endianness: Endianness): Awaitable<void> {
    const before = this.endianness;
    return after(this.vring(index).setEndianness(endianness), () => {
      if (this.behaviour.config !== undefined && this.endianness !== before) this.configChanged();
    });
  }

  /** The session is over: asks the front-end for nothing more. */
  closeChannel(): void {
    this.#iotlbMisses.close();
    this.channel.close();
  }

  /** The session goes on in another process: leaves the channel to that. */
  releaseChannel(): void {
    this.#iotlbMisses.close();
    this.channel.release();
  }

  #notifyInBand(index: number, message: "VRING_CALL" | "VRING_ERR"): void {
    if (this.channel.refusal(message) !== undefined) return;
    this.channel.request(message, { index, num: 0 }).catch((error) =>
      this.log("warning", `the front-end did not take ${message} of ring ${index}`, error, {
        event: "channel.failed",
        ring: index,
        fields: { message },
      })
    );
  }

  /**
   * A driver begins anew, so it has reset the device. For most of QEMU's devices this is all that tells: they send neither
   * RESET_DEVICE nor SET_STATUS 0. A guest that was paused, or has moved, goes on where its rings stood.
   */
  #onRewound(): void {
    // Front-ends set rings up one by one, before they enable any: the first that was used tells for all.
    if (this.#anew || this.vrings.some((vring) => vring.active)) return;
    this.#anew = true;
    this.status &= ~BigInt(DeviceStatus.DEVICE_NEEDS_RESET);
    this.windows.forget();
    this.onRewound();
    const rewound = this.everywhere((host) => host.rewind());
    if (rewound instanceof Promise) {
      rewound.catch((error) =>
        this.log("error", "the device cannot be reset in all threads", error, {
          event: "device.reset_failed",
        })
      );
    }
  }

  #onRunning(): void {
    this.#anew = false;
    this.flushConfigChange();
  }

  #onRequestError(ring: number, error: unknown): void {
    this.#metrics.ring(ring).fail();
    this.log("warning", `a request on ring ${ring} failed`, error, { event: "ring.request_failed", ring });
  }

  #onBroken(ring: number, error: unknown, dump?: BrokenRing): void {
    this.#metrics.ring(ring).break();
    this.log("error", `ring ${ring} is broken and stands still`, error, { event: "ring.broken", ring, dump });
    if (dump !== undefined) this.onBroken?.(dump, error);
    this.status |= BigInt(DeviceStatus.DEVICE_NEEDS_RESET);
    this.configChanged();
  }

  /**
   * Whether front-end and driver are up, so that something may be sent to them: a ring is started and enabled. The device
   * status does not say it: with most of QEMU's devices it never gets to DRIVER_OK.
   */
  #up(): boolean {
    return !this.frozen && this.vrings.some((vring) => vring.active);
  }

  /** Whether the front-end still has to be told that the configuration space has changed. */
  get configPending(): boolean {
    return this.#configPending;
  }

  /** All who run rings. */
  get hosts(): readonly RingHosting[] {
    return [this.host, ...this.remoteHosts];
  }

  /** The configuration space, or the status, has changed: tells the front-end, now or as soon as it is up. */
  configChanged(): void {
    this.#configPending = true;
    this.flushConfigChange();
  }

  /** Sends a change that had to wait, if it can be sent now. */
  flushConfigChange(): void {
    if (!this.#configPending || this.channel.refusal("CONFIG_CHANGE_MSG") !== undefined) return;
    this.#configPending = false;
    this.channel.request("CONFIG_CHANGE_MSG", undefined).catch((error) =>
      this.log("warning", "the front-end did not take the change of the configuration space", error, {
        event: "channel.failed",
        fields: { message: "CONFIG_CHANGE_MSG" },
      })
    );
  }
}
