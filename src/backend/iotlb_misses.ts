/**
 * Asking the front-end for entries of the IOTLB (vhost-user, "IOMMU support").
 *
 * @module
 */

import { Access, type Iotlb, type IotlbMiss } from "../memory/iotlb.ts";
import { type Iotlb as IotlbMessage, IotlbType } from "../protocol/payloads.ts";
import { RingError } from "../virtqueue/ring.ts";
import type { BackChannel } from "./back_channel.ts";
import type { VringControl } from "./vring_control.ts";

/** How long to wait before a question is asked again that was acknowledged without an entry, ms: at first and at most. */
const FIRST_DELAY = 1;
const LAST_DELAY = 1000;
/** From which delay on somebody should be told. */
const TELL_AFTER = 100;

/** What is asked for, and who waits for it. */
interface Question {
  readonly iova: number;
  readonly access: number;
  /** The ways in which rings waited when it was asked: what is answered is answered to them. */
  asked: Map<VringControl, IotlbMiss>;
  /** Rings that came to wait since then. The answer may be from before what they wait for was there. */
  joined: Map<VringControl, IotlbMiss>;
  delay: number;
  timer: ReturnType<typeof setTimeout> | undefined;
}

/**
 * The questions that are open in a session. A ring that waits holds up nothing else. It goes on by an update, and by nothing
 * else; it fails when the front-end says no, and at no time of ours.
 *
 * Question, acknowledgement, update and invalidation go over two sockets, so an acknowledgement does not say what the IOTLB
 * has now: the entry may have come and gone again before the ring has looked, or be on its way still. Then it is asked anew.
 */
export class IotlbMisses {
  readonly #channel: BackChannel;
  readonly #iotlb: () => Iotlb;
  readonly #warn: (text: string) => void;
  readonly #open = new Map<string, Question>();
  #closed = false;

  /** No questions. */
  constructor(channel: BackChannel, iotlb: () => Iotlb, warn: (text: string) => void) {
    this.#channel = channel;
    this.#iotlb = iotlb;
    this.#warn = warn;
  }

  /** Asks for what a ring waits for. */
  ask(vring: VringControl, miss: IotlbMiss): void {
    const { iova, access } = miss;
    const key = `${iova}:${access}`;
    let question = this.#open.get(key);
    if (question === undefined) {
      question = { iova, access, asked: new Map(), joined: new Map(), delay: FIRST_DELAY, timer: undefined };
      this.#open.set(key, question);
    } else if (question.timer === undefined) {
      question.joined.set(vring, miss);
      return;
    }
    question.joined.set(vring, miss);
    void this.#send(key, question);
  }

  /** Forgets all questions: the session is over. */
  close(): void {
    this.#closed = true;
    for (const { timer } of this.#open.values()) clearTimeout(timer);
    this.#open.clear();
  }

  async #send(key: string, question: Question): Promise<void> {
    clearTimeout(question.timer);
    question.timer = undefined;
    question.asked = new Map([...waiting(question.asked), ...waiting(question.joined)]);
    question.joined = new Map();
    let refusal: unknown;
    try {
      await this.#channel.requestEarly("IOTLB_MSG", message(IotlbType.MISS, question));
    } catch (error) {
      refusal = error;
    }
    if (this.#closed) return;
    if (refusal !== undefined) this.#fail(question, refusal);
    const joined = waiting(question.joined).length > 0;
    if (joined) question.delay = FIRST_DELAY;
    if (joined) return void this.#send(key, question);
    if (waiting(question.asked).length === 0) return void this.#open.delete(key);
    this.#askLater(key, question);
  }

  #askLater(key: string, question: Question): void {
    const { iova, access, delay } = question;
    if (delay < TELL_AFTER && delay * 2 >= TELL_AFTER) {
      this.#warn(
        `the front-end acknowledges that the IOTLB lacks 0x${iova.toString(16)} for ${right(access)}, ` +
          "but sends no entry; a ring waits for it",
      );
    }
    question.delay = Math.min(delay * 2, LAST_DELAY);
    question.timer = setTimeout(() => {
      if (waiting(question.asked).length > 0) void this.#send(key, question);
      else this.#open.delete(key);
    }, delay);
  }

  /** The front-end has said no: the rings that the question was asked for break. */
  #fail(question: Question, refusal: unknown): void {
    const { iova, access } = question;
    const address = `0x${iova.toString(16)}`;
    const entry = this.#iotlb().lookup(iova);
    const what = entry === undefined ? "maps nothing" : `does not allow ${right(access)}`;
    const reason = refusal instanceof Error ? refusal.message : String(refusal);
    const error = new RingError(`the IOMMU ${what} at ${address} (${reason})`);
    const failed = waiting(question.asked);
    for (const [vring, miss] of failed) void vring.fail(miss, error);
    if (entry === undefined || failed.length === 0) return;
    // QEMU has no use for it, and answers that.
    this.#channel.requestEarly("IOTLB_MSG", message(IotlbType.ACCESS_FAIL, question)).catch(() => {});
  }
}

/** Those that still wait, and in the same way. */
function waiting(rings: ReadonlyMap<VringControl, IotlbMiss>): [VringControl, IotlbMiss][] {
  return [...rings].filter(([vring, miss]) => vring.missing === miss);
}

function message(type: number, { iova, access }: Question): IotlbMessage {
  return { iova: BigInt(iova), size: 0n, userAddress: 0n, permission: access, type };
}

function right(access: number): string {
  if (access === Access.READ) return "reading";
  return access === Access.WRITE ? "writing" : "reading and writing";
}
