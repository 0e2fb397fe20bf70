/**
 * Asking the front-end for entries of the IOTLB (vhost-user, "IOMMU support").
 *
 * @module
 */

import { Access, type Iotlb, type IotlbMiss } from "../memory/iotlb.ts";
import { type Iotlb as IotlbMessage, IotlbType } from "../protocol/payloads.ts";
import { RingError } from "../virtqueue/ring.ts";
import type { BackChannel } from "./back_channel.ts";
import type { Vring } from "./vring.ts";

/**
 * How long after the acknowledgement of a miss its update may still be on the way, ms: the two come on different sockets.
 */
const GRACE = 50;

/** The questions that are open in a session. The rings that wait for them do not hold up anything else. */
export class IotlbMisses {
  readonly #channel: BackChannel;
  readonly #iotlb: () => Iotlb;
  readonly #log: (text: string, error: unknown) => void;
  /** Rings that wait, by address and access that was asked for; until the front-end acknowledges the question. */
  readonly #open = new Map<string, Set<Vring>>();

  /** No questions. */
  constructor(channel: BackChannel, iotlb: () => Iotlb, log: (text: string, error: unknown) => void) {
    this.#channel = channel;
    this.#iotlb = iotlb;
    this.#log = log;
  }

  /** Asks for an entry; a question that is open already is not asked again. */
  ask(vring: Vring, miss: IotlbMiss): void {
    const key = `${miss.iova}:${miss.access}`;
    const waiting = this.#open.get(key);
    if (waiting !== undefined) {
      waiting.add(vring);
      return;
    }
    const asking = new Set([vring]);
    this.#open.set(key, asking);
    void this.#ask(key, miss, asking);
  }

  async #ask(key: string, miss: IotlbMiss, waiting: ReadonlySet<Vring>): Promise<void> {
    const message = (type: number): IotlbMessage => ({
      iova: BigInt(miss.iova),
      size: 0n,
      userAddress: 0n,
      permission: miss.access,
      type,
    });
    let failure: Error | undefined;
    try {
      await this.#channel.requestEarly("IOTLB_MSG", message(IotlbType.MISS)).finally(() =>
        this.#open.delete(key)
      );
      await new Promise((resolve) => setTimeout(resolve, GRACE));
      // Since then it may have come and gone again, and a ring may have asked anew.
      if (this.#open.has(key)) return;
      const entry = this.#iotlb().lookup(miss.iova);
      if (entry === undefined) {
        failure = new RingError(`the IOMMU maps nothing at 0x${miss.iova.toString(16)}`);
      } else if ((entry.permission & miss.access) === 0) {
        const right = miss.access === Access.WRITE ? "writing" : "reading";
        failure = new RingError(`the IOMMU does not allow ${right} at 0x${miss.iova.toString(16)}`);
        await this.#channel.requestEarly("IOTLB_MSG", message(IotlbType.ACCESS_FAIL));
      }
    } catch (error) {
      this.#log("the front-end did not take an IOTLB message", error);
      failure ??= error as Error;
    }
    if (failure !== undefined) { for (const vring of waiting) vring.fail(miss.iova, failure); }
  }
}
