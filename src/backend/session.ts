/**
 * A front-end's session: what it negotiates, shares and starts.
 *
 * @module
 */

import { close, type DescriptorBag, fileStatus } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { GuestMemory, type RegionSource } from "../memory/guest_memory.ts";
import { FieldError } from "../protocol/error.ts";
import {
  DeviceStatus,
  featureNames,
  has,
  mask,
  type ProtocolFeature,
  protocolFeatures,
  ringFeatures,
} from "../protocol/features.ts";
import { backendMessages, frontendMessages, type MessageRow } from "../protocol/messages.ts";
import type { Config, MemoryRegion, VringDescriptor } from "../protocol/payloads.ts";
import { Connection } from "../transport/connection.ts";
import { type Handlers, Reply, Responder } from "../transport/responder.ts";
import { Requester } from "../transport/requester.ts";
import type { Device, DeviceBehaviour } from "./device.ts";
import type { Log } from "./log.ts";
import { Vring, type VringContext } from "./vring.ts";

/** Regions that a front-end may add one by one: what libvhost-user and rust-vmm answer too. */
const MAX_MEM_SLOTS = 509;

const RING_FEATURES = mask(
  ringFeatures.INDIRECT_DESC,
  ringFeatures.EVENT_IDX,
  ringFeatures.PROTOCOL_FEATURES,
  ringFeatures.VERSION_1,
);

const PROTOCOL_FEATURES = mask(
  protocolFeatures.MQ,
  protocolFeatures.REPLY_ACK,
  protocolFeatures.BACKEND_REQ,
  protocolFeatures.RESET_DEVICE,
  protocolFeatures.CONFIGURE_MEM_SLOTS,
  protocolFeatures.STATUS,
);

/** What a session needs of its server. */
export interface SessionOptions {
  /** Waiting. */
  readonly reactor: Reactor;
  /** Where to write what happens. */
  readonly log: Log;
  /** Called once when the front-end has left or was dropped, and the device has finished all its requests. */
  onEnd(): void;
}

/** A plain number of a 64-bit field. No machine has as much memory as 2^53. */
function plain(field: string, value: bigint): number {
  if (value >= 1n << 53n) throw new FieldError(field, "below 2^53", value);
  return Number(value);
}

function source(region: MemoryRegion, fd: number): RegionSource {
  return {
    guestAddress: plain("guest address", region.guestAddress),
    size: plain("region size", region.size),
    userAddress: plain("user address", region.userAddress),
    mmapOffset: plain("mmap offset", region.mmapOffset),
    fd,
  };
}

/** One front-end and the device that it drives. Owns the connection, guest memory and all rings. */
export class Session {
  /** Connection with the front-end. */
  readonly connection: Connection;
  readonly #device: Device;
  readonly #behaviour: DeviceBehaviour;
  readonly #options: SessionOptions;
  readonly #memory = new GuestMemory(MAX_MEM_SLOTS);
  readonly #vrings: readonly Vring[];
  readonly #responder: Responder<typeof frontendMessages>;
  readonly #unwatch: () => void;
  readonly #offered: bigint;
  readonly #offeredProtocol: bigint;
  #features = 0n;
  #protocol = 0n;
  #status = 0n;
  #channel: Requester<typeof backendMessages> | undefined;
  #configPending = false;

  /** Takes over a connected socket and starts serving it. */
  constructor(fd: number, device: Device, options: SessionOptions) {
    this.#device = device;
    this.#options = options;
    this.#behaviour = device.connect();
    this.#offered = RING_FEATURES | (device.definition.features ?? 0n);
    this.#offeredProtocol = PROTOCOL_FEATURES |
      (this.#behaviour.config === undefined ? 0n : mask(protocolFeatures.CONFIG));
    const context: VringContext = {
      memory: this.#memory,
      reactor: options.reactor,
      features: () => this.#features,
      onLive: () => this.#flushConfigChange(),
      onRequestError: (vring, error) =>
        this.#log("warning", `a request on ring ${vring.index} failed`, error),
      onBroken: (vring, error) => this.#onBroken(vring, error),
    };
    this.#vrings = this.#behaviour.queues.map((handler, index) => new Vring(index, handler, context));
    this.#unwatch = device.onConfigChange(() => this.#configChanged());
    this.connection = new Connection(fd, frontendMessages);
    this.#responder = new Responder(this.connection, frontendMessages, this.#handlers(), options.reactor, {
      replyAck: () => this.#negotiated("REPLY_ACK"),
      refuse: (row) => this.#refuse(row),
      onFailure: (error) => this.#log("warning", "a request of the front-end failed", error),
      onEnd: (error) => this.#end(error),
    });
  }

  /** Drops the front-end. */
  end(): void {
    this.#responder.end();
  }

  #log(level: "debug" | "info" | "warning" | "error", text: string, error?: unknown): void {
    this.#options.log(level, `${this.#device.name}: ${text}`, error);
  }

  #negotiated(feature: ProtocolFeature): boolean {
    return has(this.#protocol, protocolFeatures[feature]);
  }

  #refuse({ requires, requiresRing }: MessageRow): string | undefined {
    if (requires !== undefined && !this.#negotiated(requires)) {
      return `protocol feature ${requires} was not negotiated`;
    }
    // Some are sent before SET_FEATURES (QEMU's net sends SET_VRING_ENABLE), so the offer decides.
    if (requiresRing !== undefined && !has(this.#offered, ringFeatures[requiresRing])) {
      return `feature ${requiresRing} is not offered`;
    }
    return undefined;
  }

  #vring(index: number): Vring {
    const vring = this.#vrings[index];
    if (vring === undefined) throw new FieldError("ring", `0 to ${this.#vrings.length - 1}`, index);
    return vring;
  }

  /** The ring and the descriptor of SET_VRING_KICK, _CALL or _ERR; -1 for none. The ring owns it from here on. */
  #withDescriptor({ index, noDescriptor }: VringDescriptor, fds: DescriptorBag): [Vring, number] {
    const vring = this.#vring(index);
    if (fds.length !== (noDescriptor ? 0 : 1)) {
      throw new FieldError(
        "descriptors",
        noDescriptor ? "none with flag bit 8" : "one without flag bit 8",
        fds.length,
      );
    }
    return [vring, fds.take() ?? -1];
  }

  #handlers(): Handlers<typeof frontendMessages> {
    return {
      GET_FEATURES: () => this.#offered,
      SET_FEATURES: (features) => this.#setFeatures(features),
      SET_OWNER: () => {},
      RESET_OWNER: () => {
        for (const vring of this.#vrings) vring.setEnabled(false);
      },
      GET_PROTOCOL_FEATURES: () => this.#offeredProtocol,
      SET_PROTOCOL_FEATURES: (features) => {
        this.#checkOffered(features, this.#offeredProtocol, protocolFeatures);
        this.#protocol = features;
      },
      GET_QUEUE_NUM: () => BigInt(this.#vrings.length),

      SET_MEM_TABLE: (regions, fds) => {
        if (fds.length !== regions.length) {
          throw new FieldError("descriptors", `one for each of ${regions.length} regions`, fds.length);
        }
        const files = fds.list();
        if (this.#memory.replace(regions.map((region, i) => source(region, files[i])))) this.#memoryChanged();
      },
      GET_MAX_MEM_SLOTS: () => BigInt(MAX_MEM_SLOTS),
      ADD_MEM_REG: (region, fds) => {
        this.#memory.add(source(region, fds.list()[0]));
      },
      REM_MEM_REG: (region) => {
        this.#memory.remove(source(region, -1));
        this.#memoryChanged();
      },

      SET_VRING_NUM: ({ index, num }) => this.#vring(index).setSize(num),
      SET_VRING_ADDR: (address) => this.#vring(address.index).setAddress(address),
      SET_VRING_BASE: ({ index, num }) => this.#vring(index).setBase(num),
      GET_VRING_BASE: ({ index }) => this.#stopVring(index),
      SET_VRING_KICK: (which, fds) => {
        const [vring, fd] = this.#withDescriptor(which, fds);
        vring.start(fd);
      },
      SET_VRING_CALL: (which, fds) => {
        const [vring, fd] = this.#withDescriptor(which, fds);
        vring.setCall(fd);
      },
      SET_VRING_ERR: (which, fds) => {
        const [vring, fd] = this.#withDescriptor(which, fds);
        vring.setError(fd);
      },
      SET_VRING_ENABLE: ({ index, num }) => {
        if (num > 1) throw new FieldError("num", "0 or 1", num);
        this.#vring(index).setEnabled(num === 1);
      },

      GET_CONFIG: (request) => this.#getConfig(request),
      SET_CONFIG: ({ offset, flags, data }) => {
        if (flags > 1) throw new FieldError("flags", "0 (guest) or 1 (migration)", flags);
        const write = this.#behaviour.config?.write;
        if (write === undefined) {
          throw new FieldError("configuration space", "left alone: it is read-only", "a write");
        }
        write.call(this.#behaviour.config, offset, data, flags === 1);
      },

      SET_BACKEND_REQ_FD: (_, fds) => this.#setChannel(fds.take() as number),
      SET_STATUS: (status) => {
        if (status > 0xffn) throw new FieldError("status", "8 bits", status);
        this.#status = status;
        this.#flushConfigChange();
      },
      GET_STATUS: () => this.#status,
      RESET_DEVICE: () => this.#resetDevice(),
    };
  }

  #checkOffered(features: bigint, offered: bigint, names: Readonly<Record<string, number>>): void {
    const surplus = features & ~offered;
    if (surplus !== 0n) {
      throw new FieldError("features", "among those offered", featureNames(surplus, names).join(", "));
    }
  }

  #setFeatures(features: bigint): void {
    this.#checkOffered(features, this.#offered, ringFeatures);
    if (features !== this.#features) {
      const running = this.#vrings.find((vring) => vring.started);
      if (running !== undefined) {
        throw new FieldError("features", `left alone while ring ${running.index} runs`, features);
      }
    }
    this.#features = features;
    this.#behaviour.negotiated?.(features);
    // Without PROTOCOL_FEATURES there is no SET_VRING_ENABLE, and rings start enabled.
    if (!has(features, ringFeatures.PROTOCOL_FEATURES)) {
      for (const vring of this.#vrings) vring.setEnabled(true);
    }
  }

  #memoryChanged(): void {
    for (const vring of this.#vrings) vring.memoryChanged();
  }

  #stopVring(
    index: number,
  ): Reply<{ index: number; num: number }> | Promise<Reply<{ index: number; num: number }>> {
    const answer = (num: number) => new Reply({ index, num });
    const vring = this.#vrings[index];
    if (vring === undefined) {
      // There is no way to answer failure, and a front-end waits for an answer.
      this.#log("warning", `GET_VRING_BASE: ring must be 0 to ${this.#vrings.length - 1}, got ${index}`);
      return answer(0);
    }
    const finish = (base: number) => {
      vring.setCall(-1);
      return answer(base);
    };
    const base = vring.stop();
    return typeof base === "number" ? finish(base) : base.then(finish);
  }

  #getConfig({ offset, flags, data }: Config): Reply<Config> {
    const answer = new Uint8Array(data.length);
    try {
      const space = this.#behaviour.config?.read() ?? new Uint8Array(0);
      answer.set(space.subarray(offset, offset + data.length));
    } catch (error) {
      this.#log("warning", "GET_CONFIG: the device cannot tell its configuration space", error);
      return new Reply<Config>(undefined);
    }
    return new Reply({ offset, flags, data: answer });
  }

  #resetDevice(): void | Promise<void> {
    const finish = () => {
      for (const vring of this.#vrings) vring.reset();
      this.#features = 0n;
      this.#status = 0n;
      this.#behaviour.reset?.();
    };
    const stops = this.#vrings.map((vring) => vring.stop());
    if (stops.every((stop) => typeof stop === "number")) return finish();
    return Promise.all(stops).then(finish);
  }

  #onBroken(vring: Vring, error: unknown): void {
    this.#log("error", `ring ${vring.index} is broken and stands still`, error);
    this.#status |= BigInt(DeviceStatus.DEVICE_NEEDS_RESET);
    this.#configChanged();
  }

  #setChannel(fd: number): void {
    const { kind } = fileStatus(fd);
    if (kind !== "socket") {
      close(fd);
      throw new FieldError("descriptor", "a socket", `a ${kind}`);
    }
    this.#channel?.end();
    this.#channel = new Requester(
      new Connection(fd, backendMessages),
      backendMessages,
      this.#options.reactor,
      (error) => {
        if (error !== undefined) this.#log("warning", "the back-end channel is closed", error);
      },
    );
    this.#channel.replyAck = this.#negotiated("REPLY_ACK");
    this.#flushConfigChange();
  }

  #configChanged(): void {
    this.#configPending = true;
    this.#flushConfigChange();
  }

  /**
   * Sends CONFIG_CHANGE_MSG once the device is up. Before that, it would end QEMU (10.0 and 11.1), which has no device to
   * tell yet.
   */
  #flushConfigChange(): void {
    const channel = this.#channel;
    if (!this.#configPending || channel === undefined || !this.#negotiated("CONFIG")) return;
    const up = this.#negotiated("STATUS")
      ? (this.#status & BigInt(DeviceStatus.DRIVER_OK)) !== 0n
      : this.#vrings.some((vring) => vring.live);
    if (!up || !this.#vrings.some((vring) => vring.started)) return;
    this.#configPending = false;
    channel.request("CONFIG_CHANGE_MSG", undefined).catch((error) =>
      this.#log("warning", "the front-end did not take the change of the configuration space", error)
    );
  }

  #end(error: unknown): void {
    if (error !== undefined) this.#log("error", "the session is over", error);
    else this.#log("info", "the front-end has left");
    this.#unwatch();
    const unfinished = this.#vrings.map((vring) => vring.close()).filter((each) => each !== undefined);
    this.#channel?.end();
    this.#memory.clear();
    this.#behaviour.disconnected?.();
    // The next front-end of an exclusive device must not be overtaken by what this one has asked for.
    if (unfinished.length === 0) this.#options.onEnd();
    else void Promise.all(unfinished).then(() => this.#options.onEnd());
  }
}
