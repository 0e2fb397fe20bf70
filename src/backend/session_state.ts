/**
 * What a session has negotiated and holds; the handlers of its messages work on it.
 *
 * @module
 */

import type { Reactor } from "../../ffi/reactor.ts";
import { userfaultfdAvailable } from "../../ffi/userfaultfd.ts";
import { GuestMemory } from "../memory/guest_memory.ts";
import { Iotlb, IotlbMiss } from "../memory/iotlb.ts";
import { Segments } from "../memory/segments.ts";
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
import type { MessageRow } from "../protocol/messages.ts";
import type { Endianness } from "../protocol/struct.ts";
import { BackChannel } from "./back_channel.ts";
import type { InflightBuffer } from "./inflight_buffer.ts";
import { IotlbMisses } from "./iotlb_misses.ts";
import type { Device, DeviceBehaviour, FrontEndLink } from "./device.ts";
import type { StateTransfer } from "./device_state.ts";
import type { Log, LogLevel } from "./log.ts";
import { MigrationLog } from "./migration_log.ts";
import { Postcopy } from "./postcopy.ts";
import { SharedWindows } from "./shared_windows.ts";
import { Vring, type VringPart } from "./vring.ts";

/** Guest addresses are below this: numbers hold them exactly. */
const END = 1n << 53n;

/** Regions that a front-end may add one by one: what libvhost-user and rust-vmm answer too. */
export const MAX_MEM_SLOTS = 509;

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
  /** Whether to offer ACCESS_PLATFORM: the driver's addresses may go through an IOMMU. */
  readonly iommu?: boolean;
  /** Whether to offer INBAND_NOTIFICATIONS. */
  readonly inBandNotifications?: boolean;
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

/**
 * A ring's part in pages that do not follow each other, as Linux allocates rings behind an IOMMU. What the ring itself
 * writes there cannot be logged as one range, so it counts as outside the log.
 */
function scattered(segments: Segments): VringPart | undefined {
  const joined = segments.collage();
  if (joined === undefined) return undefined;
  const { collage, offset } = joined;
  const region = { buffer: collage.buffer, bufferOffset: 0, guestAddress: Number.MAX_SAFE_INTEGER };
  return { region, offset, collage };
}

/** One session. */
export class SessionState {
  /** The device. */
  readonly device: Device;
  /** What it does for this front-end. */
  readonly behaviour: DeviceBehaviour;
  /** Waiting. */
  readonly reactor: Reactor;
  /** Guest memory. */
  readonly memory = new GuestMemory(MAX_MEM_SLOTS);
  /** The rings by index. */
  readonly vrings: readonly Vring[];
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
  /** Features that the driver accepted. */
  features = 0n;
  /** Protocol features that the front-end accepted; kept over resets. */
  protocol = 0n;
  /** The device status. */
  status = 0n;
  /** The dirty log. */
  readonly migrationLog = new MigrationLog();
  /** Where requests in flight are recorded, once the front-end has given a buffer. */
  inflight: InflightBuffer | undefined;
  /** The last transfer of the device's state. */
  transfer: StateTransfer | undefined;
  /** Addresses that rings wait for. */
  readonly #iotlbMisses: IotlbMisses;
  #iotlb: Iotlb | undefined;
  readonly #log: Log;
  #configPending = false;
  /** Whether it is known that a driver begins anew. */
  #anew = false;

  /** A session at its start. */
  constructor(device: Device, options: SessionOptions) {
    const { reactor, log, iommu = false, inBandNotifications = false } = options;
    this.device = device;
    this.reactor = reactor;
    this.#log = log;
    this.channel = new BackChannel({
      reactor,
      negotiated: (feature) => this.negotiated(feature),
      up: () => this.#up(),
      onError: (error) => this.log("warning", "the back-end channel is closed", error),
    });
    this.#iotlbMisses = new IotlbMisses(
      this.channel,
      () => this.iotlb,
      (text) => this.log("warning", text),
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
    this.vrings = this.behaviour.queues.map((user, index) =>
      new Vring(index, user, {
        reactor,
        space: () => this.#iommu() ?? this.memory,
        locate: (address, length, access) => this.#locate(address, length, access),
        hasMemory: () => this.memory.regions.length > 0,
        features: () => this.features,
        inflight: (vring) => this.inflight?.region(vring.index, vring.size),
        log: () => this.accepted("LOG_ALL") ? this.migrationLog.log : undefined,
        logged: () => this.migrationLog.tell(),
        logAddress: (address) => this.#logAddress(address),
        onMiss: (vring, miss) => this.#iotlbMisses.ask(vring, miss),
        notifyInBand: (vring, message) => this.#notifyInBand(vring, message),
        onRunning: () => this.#onRunning(),
        onRewound: () => this.#onRewound(),
        onRequestError: (vring, error) =>
          this.log("warning", `a request on ring ${vring.index} failed`, error),
        onBroken: (vring, error) => this.#onBroken(vring, error),
      })
    );
  }

  /** Writes about what happens. */
  log(level: LogLevel, text: string, error?: unknown): void {
    this.#log(level, `${this.device.name}: ${text}`, error);
  }

  /** Whether a protocol feature was negotiated. */
  negotiated(feature: ProtocolFeature): boolean {
    return has(this.protocol, protocolFeatures[feature]);
  }

  /** Whether the driver has accepted a feature. */
  accepted(feature: RingFeature): boolean {
    return has(this.features, ringFeatures[feature]);
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
  vring(index: number): Vring {
    const vring = this.vrings[index];
    if (vring === undefined) throw new FieldError("ring", `0 to ${this.vrings.length - 1}`, index);
    return vring;
  }

  /** Byte order of the driver: little, unless it is a legacy one that has said otherwise. */
  get endianness(): Endianness {
    return this.vrings.some(({ endianness }) => endianness === "big") ? "big" : "little";
  }

  /** SET_VRING_ENDIAN. The fields of the configuration space turn around with the first ring, which nobody else can know. */
  setEndianness(index: number, endianness: Endianness): void {
    const before = this.endianness;
    this.vring(index).setEndianness(endianness);
    if (this.behaviour.config !== undefined && this.endianness !== before) this.configChanged();
  }

  /** The IOTLB, when the driver's addresses go through it. */
  #iommu(): Iotlb | undefined {
    return this.accepted("ACCESS_PLATFORM") ? this.iotlb : undefined;
  }

  /** The IOTLB has a new entry: rings that wait for it go on. */
  iotlbUpdated(): void {
    for (const vring of this.vrings) {
      const { missing } = vring;
      if (missing !== undefined && this.iotlb.has(missing)) vring.retry();
    }
  }

  /** A ring has stopped. While all do, QEMU does not tell what its IOMMU unmaps: nothing that is known can be relied on. */
  vringStopped(): void {
    if (!this.vrings.some((vring) => vring.started)) this.iotlb.clear();
  }

  /** The session is over: asks the front-end for nothing more. */
  closeChannel(): void {
    this.#iotlbMisses.close();
    this.channel.close();
  }

  /** The entries that the front-end has given. */
  get iotlb(): Iotlb {
    return this.#iotlb ??= new Iotlb(this.memory, this.negotiated("GPA_ADDRESSES"));
  }

  /** Where a part of a ring is (vhost-user, "Ring addresses"): its address is of the front-end, the guest or the IOMMU. */
  #locate(address: bigint, length: number, access: number): VringPart | undefined {
    const segments = new Segments();
    const at = Number(address);
    const iommu = this.#iommu();
    if (iommu !== undefined) {
      if (!iommu.resolve(segments, at, length, access)) return undefined;
      return segments.contiguous() ?? scattered(segments);
    }
    if (this.negotiated("GPA_ADDRESSES")) {
      return this.memory.append(segments, at, length) ? segments.contiguous() : undefined;
    }
    const region = this.memory.findUser(at, length);
    return region === undefined ? undefined : { region, offset: at - region.userAddress };
  }

  /** Behind an IOMMU the log's address is one of the driver's, too. */
  #logAddress(address: bigint): number {
    const iommu = this.#iommu();
    if (iommu === undefined) return address < END ? Number(address) : -1;
    const segments = new Segments();
    try {
      if (!iommu.append(segments, Number(address), 1, true)) return -1;
    } catch (error) {
      if (error instanceof IotlbMiss) return -1;
      throw error;
    }
    const place = segments.contiguous();
    return place === undefined ? -1 : place.region.guestAddress + place.offset;
  }

  #notifyInBand({ index }: Vring, message: "VRING_CALL" | "VRING_ERR"): void {
    if (this.channel.refusal(message) !== undefined) return;
    this.channel.request(message, { index, num: 0 }).catch((error) =>
      this.log("warning", `the front-end did not take ${message} of ring ${index}`, error)
    );
  }

  /** Changes the memory table, by a function that says whether it has. No device holds a chain meanwhile. */
  changeMemory(change: () => boolean): void {
    for (const vring of this.vrings) vring.takeBack();
    try {
      if (change()) this.memoryChanged();
    } finally {
      for (const vring of this.vrings) vring.handOut();
    }
  }

  /** The memory table has changed. */
  memoryChanged(): void {
    for (const vring of this.vrings) vring.memoryChanged();
  }

  /** Back to the state at power-on: the device, and what it showed to the driver. */
  resetDevice(): void {
    this.windows.forget();
    this.behaviour.reset?.();
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
    this.resetDevice();
    // The driver has said already what it accepts.
    this.behaviour.negotiated?.(this.features);
  }

  #onRunning(): void {
    this.#anew = false;
    this.flushConfigChange();
  }

  #onBroken(vring: Vring, error: unknown): void {
    this.log("error", `ring ${vring.index} is broken and stands still`, error);
    this.status |= BigInt(DeviceStatus.DEVICE_NEEDS_RESET);
    this.configChanged();
  }

  /**
   * Whether front-end and driver are up, so that something may be sent to them: a ring is started and enabled. The device
   * status does not say it: with most of QEMU's devices it never gets to DRIVER_OK.
   */
  #up(): boolean {
    return this.vrings.some((vring) => vring.active);
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
      this.log("warning", "the front-end did not take the change of the configuration space", error)
    );
  }
}
