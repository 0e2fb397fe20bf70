import { close, fileStatus } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { defineDevice, type Device, type FrontEndLink } from "../../mod.ts";
import {
  type DriverQueue,
  type FrontEnd,
  type FrontEndOptions,
  Reply,
  type SharedMemory,
} from "../../src/frontend/mod.ts";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { echoDevice } from "../features/echo.ts";
import { Scene } from "../session/scene.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { echo } from "./stand.ts";

const { XEN_MMAP, INBAND_NOTIFICATIONS, REPLY_ACK } = protocolFeatures;

/** Every protocol feature that makes sense here. */
const ALL = ((1n << 23n) - 1n) & ~mask(XEN_MMAP, INBAND_NOTIFICATIONS);

/** What a test of one message chooses. */
export interface StageOptions {
  /** Features to accept in addition. */
  readonly deviceFeatures?: bigint;
  /** Features of the ring not to accept. */
  readonly withoutFeatures?: bigint;
  /** Protocol features not to accept. */
  readonly without?: bigint;
  /** Whether notifications are messages. */
  readonly inBand?: boolean;
  /** Whether the device is behind an IOMMU, which maps one to one what is asked for. */
  readonly iommu?: boolean;
  /** Whether the driver is a legacy one of a big-endian machine. */
  readonly bigEndian?: boolean;
  /** Whether the front-end has no handlers for the channel. */
  readonly deaf?: boolean;
}

/** What crossed the connection, as its front-end sees it. */
export interface Crossing {
  readonly direction: "in" | "out";
  readonly name: string;
  readonly flags: number;
}

/** A device that can everything, and a front-end that accepts all of that. */
export class MessageStage {
  scene!: Scene;
  frontEnd!: FrontEnd;
  link!: FrontEndLink;
  device!: Device;
  memory!: SharedMemory;
  /** What device and front-end were told. */
  readonly said: string[] = [];
  readonly crossings: Crossing[] = [];
  readonly channelFailures: string[] = [];
  readonly config: Uint8Array = Uint8Array.of(1, 2, 3, 4);
  state: Uint8Array = Uint8Array.of(5, 6, 7);
  /** A file that both sides hand out. */
  readonly file: number = memoryFile("test", 8192);
  gpuSocket = -1;

  static async open(scope: Scope, replyAck: boolean, options: StageOptions = {}): Promise<MessageStage> {
    const stage = new MessageStage();
    onEnd(scope, () => close(stage.file));
    stage.device = stage.#device();
    const { inBand = false, iommu = false } = options;
    stage.scene = await Scene.open(scope, stage.device, { inBandNotifications: inBand, iommu });
    stage.frontEnd = await stage.scene.frontEnd(stage.#options(replyAck, options));
    stage.frontEnd.onConfigChange = () => void stage.said.push("config");
    stage.frontEnd.onChannelFailure = (error) => void stage.channelFailures.push(String(error));
    stage.memory = stage.scene.memory(1 << 17);
    return stage;
  }

  #options(replyAck: boolean, options: StageOptions): FrontEndOptions {
    const { iommu = false, inBand = false, deaf = false, without = 0n } = options;
    const { said } = this;
    return {
      deviceFeatures: (options.deviceFeatures ?? 0n) | (iommu ? mask(ringFeatures.ACCESS_PLATFORM) : 0n),
      withoutFeatures: options.withoutFeatures,
      endianness: options.bigEndian === true ? "big" : "little",
      protocolFeatures: inBand ? ALL | mask(INBAND_NOTIFICATIONS) : ALL,
      withoutProtocolFeatures: without | (replyAck ? 0n : mask(REPLY_ACK)),
      tap: (direction, { name, header: { flags } }) => void this.crossings.push({ direction, name, flags }),
      channel: deaf ? {} : {
        IOTLB_MSG: async ({ iova }) => {
          said.push("miss");
          await this.map(Number(iova));
        },
        VRING_HOST_NOTIFIER_MSG: ({ index }, fds) => void said.push(`notifier ${index} ${this.#isOurs(fds)}`),
        SHARED_OBJECT_ADD: (uuid) => void said.push(`add ${uuid[0]}`),
        SHARED_OBJECT_REMOVE: (uuid) => void said.push(`remove ${uuid[0]}`),
        SHARED_OBJECT_LOOKUP: () => new Reply<void>(undefined, [this.file]),
        SHMEM_MAP: ({ shmid }, fds) => void said.push(`map ${shmid} ${this.#isOurs(fds)}`),
        SHMEM_UNMAP: ({ shmid }) => void said.push(`unmap ${shmid}`),
      },
    };
  }

  #isOurs(fds: { list(): readonly number[] }): boolean {
    return fileStatus(fds.list()[0]).inode === fileStatus(this.file).inode;
  }

  #device(): Device {
    const { said } = this;
    const { queues: [queue] = [] } = echoDevice().definition;
    return defineDevice({
      type: 63,
      connect: (link) => {
        this.link = link;
        return {
          queues: [queue, queue],
          config: { read: () => this.config, write: (offset, data) => this.config.set(data, offset) },
          negotiated: (features) => void said.push(`features ${features.toString(16)}`),
          reset: () => void said.push("reset"),
          state: { save: () => this.state, load: (state) => void (this.state = state.slice()) },
          sharedMemory: new Map([[1, 1 << 20]]),
          sharedObject: () => this.file,
          announce: (mac) => void said.push(`rarp ${mac}`),
          setMtu: (mtu) => void said.push(`mtu ${mtu}`),
          crypto: { create: () => 42n, close: (id) => void said.push(`crypto ${id}`) },
          setGpuSocket: (fd) => void (this.gpuSocket = fd),
          hostNotifiers: true,
          crossEndian: true,
        };
      },
    });
  }

  /** Maps a page one to one. */
  async map(iova: number): Promise<void> {
    const page = Math.floor(iova / 4096) * 4096;
    // GPA_ADDRESSES is negotiated.
    const userAddress = BigInt(page);
    const entry = { iova: BigInt(page), size: 4096n, userAddress, permission: 3, type: 2 };
    await this.frontEnd.request("IOTLB_MSG", entry);
  }

  /** Shares memory and starts a ring. */
  async start(): Promise<DriverQueue> {
    await this.frontEnd.shareMemory(this.memory);
    const queue = await this.frontEnd.startQueue(0, this.memory, { size: 8 });
    await this.frontEnd.driverOk();
    return queue;
  }

  /** Shares memory, starts a ring and uses it. */
  async echo(): Promise<DriverQueue> {
    const queue = await this.start();
    for (let value = 1; value <= 3; value++) await echo(queue, this.memory, value);
    return queue;
  }

  /** Whether a message was sent and, where it has one, its answer came. */
  crossed(name: string): boolean {
    return this.crossings.some((each) => each.direction === "out" && each.name === name);
  }
}
