import assert from "node:assert/strict";
import type { Device } from "../../mod.ts";
import type { DriverQueue, FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { type Iotlb, IotlbType, mask, ringFeatures } from "../../src/protocol/mod.ts";
import { Scene } from "../session/scene.ts";
import type { Scope } from "../support/cleanup.ts";
import { echoDevice } from "./echo.ts";

export const PAGE = 4096;
export const READ = 1;
export const BOTH = 3;

/** A front-end whose IOMMU maps pages one to one, on demand, as far as it is told to. */
export class Iommu {
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
  /** Questions that came. */
  readonly misses: Iotlb[] = [];
  /** Access failures that were reported. */
  readonly failures: Iotlb[] = [];
  /** What is done about a question before it is acknowledged; an exception is a refusal. */
  answer: (iova: number) => void | Promise<void>;

  private constructor(frontEnd: FrontEnd, memory: SharedMemory) {
    this.frontEnd = frontEnd;
    this.memory = memory;
    this.answer = this.mapped;
  }

  /** Serves a device, by default an echo, and negotiates. */
  static async open(
    scope: Scope,
    device: Device = echoDevice(),
    packed = false,
  ): Promise<{ iommu: Iommu; scene: Scene }> {
    const scene = await Scene.open(scope, device, { iommu: true });
    const frontEnd = await scene.frontEnd({
      deviceFeatures: mask(ringFeatures.ACCESS_PLATFORM),
      withoutFeatures: packed ? 0n : mask(ringFeatures.RING_PACKED),
      channel: { IOTLB_MSG: (message) => iommu.#asked(message) },
    });
    const iommu = new Iommu(frontEnd, scene.memory(1 << 20));
    await iommu.frontEnd.shareMemory(iommu.memory);
    return { iommu, scene };
  }

  async #asked(message: Iotlb): Promise<void> {
    if (message.type === IotlbType.ACCESS_FAIL) return void this.failures.push(message);
    this.misses.push(message);
    await this.answer(Number(message.iova));
  }

  /** An answer as QEMU gives it: the entry first, then the acknowledgement; or a refusal. */
  readonly mapped = async (iova: number): Promise<void> => {
    const offset = iova - this.memory.guestAddress;
    if (offset < 0 || offset >= this.memory.byteLength) this.refused();
    await this.map(iova, BOTH);
  };

  /** A refusal. */
  readonly refused = (): void => {
    throw new Error("the guest's page table has nothing there");
  };

  /** How often an address was asked for. */
  asked(iova: number): number {
    return this.misses.filter((miss) => Number(miss.iova) === iova).length;
  }

  /** Maps the page of an address, to itself or to another. */
  async map(iova: number, permission: number, to = iova): Promise<void> {
    const page = Math.floor(iova / PAGE) * PAGE;
    const target = Math.floor(to / PAGE) * PAGE;
    await this.frontEnd.request("IOTLB_MSG", {
      iova: BigInt(page),
      size: BigInt(PAGE),
      userAddress: this.memory.userAddress + BigInt(target - this.memory.guestAddress),
      permission,
      type: IotlbType.UPDATE,
    });
  }

  /** Takes a range away. */
  async unmap(iova: number, size: number): Promise<void> {
    const none = { userAddress: 0n, permission: 0, type: IotlbType.INVALIDATE };
    await this.frontEnd.request("IOTLB_MSG", { iova: BigInt(iova), size: BigInt(size), ...none });
  }

  /** Starts a ring. */
  async start(): Promise<DriverQueue> {
    return await this.frontEnd.startQueue(0, this.memory, { size: 8 });
  }

  /** Sends bytes and returns the echo. Each buffer has a page of its own. */
  async echo(queue: DriverQueue, value: number): Promise<number[]> {
    return await this.echoIn(
      queue,
      value,
      this.memory.allocate(PAGE, PAGE),
      this.memory.allocate(PAGE, PAGE),
    );
  }

  /** The same with given pages. */
  async echoIn(queue: DriverQueue, value: number, request: Page, answer: Page): Promise<number[]> {
    request.bytes.fill(value);
    const written = await queue.request(
      [{ guestAddress: request.guestAddress, length: 16 }],
      [{ guestAddress: answer.guestAddress, length: 16 }],
    );
    assert.equal(written, 16);
    return [...answer.bytes.subarray(0, 16)];
  }
}

/** A page of the guest's memory. */
export type Page = ReturnType<SharedMemory["allocate"]>;
