/**
 * What a back-end asks of its front-end, on the channel of SET_BACKEND_REQ_FD.
 *
 * @module
 */

import type { Reactor } from "../../ffi/reactor.ts";
import { ProtocolError } from "../protocol/error.ts";
import { type ProtocolFeature, protocolFeatures } from "../protocol/features.ts";
import {
  type BackendMessage,
  backendMessages,
  type MessageRow,
  type PayloadOf,
  type ReplyOf,
} from "../protocol/messages.ts";
import { Connection } from "../transport/connection.ts";
import { type Answer, Requester } from "../transport/requester.ts";

/** What the channel needs of its session. */
export interface BackChannelContext {
  /** Waiting. */
  readonly reactor: Reactor;
  /** Whether a protocol feature was negotiated. */
  negotiated(feature: ProtocolFeature): boolean;
  /**
   * Whether front-end and driver are up. Before that, and while the device is suspended, nothing may be sent: QEMU (10.0 and
   * 11.1) has no device to tell yet and ends.
   */
  up(): boolean;
  /** Requests that may be unanswered. */
  readonly answers: number;
  /** The channel has broken. */
  onError(error: unknown): void;
}

/** The channel; absent until the front-end has given one. Owns its socket. */
export class BackChannel {
  readonly #context: BackChannelContext;
  #requester: Requester<typeof backendMessages> | undefined;
  /** Resolves at the end of {@link hold}. */
  #held: Promise<void> | undefined;
  #resume: () => void = () => {};

  /** A channel without a socket. */
  constructor(context: BackChannelContext) {
    this.#context = context;
  }

  /** SET_BACKEND_REQ_FD: takes over a socket, in place of an earlier one. */
  open(fd: number): void {
    this.close();
    const connection = new Connection(fd, backendMessages);
    this.#requester = new Requester(connection, backendMessages, this.#context.reactor, (error) => {
      if (error !== undefined) this.#context.onError(error);
    });
  }

  /** Closes the socket; requests under way fail. */
  close(): void {
    this.resume();
    this.#requester?.end();
    this.#requester = undefined;
  }

  /** Resolves when no answer is due. */
  answered(): Promise<void> {
    return this.#requester?.answered() ?? Promise.resolve();
  }

  /** Lets requests wait until {@link resume}. Resolves when no answer is due. */
  hold(): Promise<void> {
    this.#held ??= new Promise((resolve) => this.#resume = resolve);
    return this.answered();
  }

  /** Ends {@link hold}. */
  resume(): void {
    this.#held = undefined;
    this.#resume();
  }

  /** Closes the socket, which another process goes on with. */
  release(): void {
    this.#requester?.release();
    this.#requester = undefined;
    this.resume();
  }

  /** Why a message cannot be sent, even while the device is up. */
  #missing(name: BackendMessage): string | undefined {
    const { requires, fds }: MessageRow = backendMessages[name];
    const needed: (ProtocolFeature | undefined)[] = ["BACKEND_REQ", requires];
    if (fds !== undefined) needed.push("BACKEND_SEND_FD");
    for (const feature of needed) {
      if (feature !== undefined && !this.#context.negotiated(feature)) {
        return `protocol feature ${feature} (bit ${protocolFeatures[feature]}) was not negotiated`;
      }
    }
    if (this.#requester === undefined) return "the front-end has given no back-end channel";
    return undefined;
  }

  /** Why a message cannot be sent now, or `undefined` when it can. */
  refusal(name: BackendMessage): string | undefined {
    return this.#missing(name) ?? (this.#context.up() ? undefined : "no ring is running");
  }

  /**
   * Sends a message, and waits for the answer where there is one. The session goes on meanwhile: a front-end may ask
   * something before it answers.
   *
   * @param fds copies go to the front-end
   * @throws {ProtocolError} when it may not be sent now, or the front-end says that it failed
   */
  request<K extends BackendMessage>(
    name: K,
    payload: PayloadOf<(typeof backendMessages)[K]>,
    fds: readonly number[] = [],
  ): Promise<Answer<ReplyOf<(typeof backendMessages)[K]>>> {
    const refusal = this.refusal(name);
    if (refusal !== undefined) return Promise.reject(new ProtocolError(name, `cannot be sent: ${refusal}`));
    return this.requestEarly(name, payload, fds);
  }

  /** The same while a ring is only about to run, which needs entries of the IOTLB to do so. */
  async requestEarly<K extends BackendMessage>(
    name: K,
    payload: PayloadOf<(typeof backendMessages)[K]>,
    fds: readonly number[] = [],
  ): Promise<Answer<ReplyOf<(typeof backendMessages)[K]>>> {
    if (this.#held !== undefined) await this.#held;
    const missing = this.#missing(name);
    if (missing !== undefined || this.#requester === undefined) {
      throw new ProtocolError(name, `cannot be sent: ${missing}`);
    }
    const { answers } = this.#context;
    if (this.#requester.unanswered >= answers) {
      throw new ProtocolError(name, `cannot be sent: ${answers} requests are unanswered (limit answers)`);
    }
    this.#requester.replyAck = this.#context.negotiated("REPLY_ACK");
    return await this.#requester.request(name, payload, fds);
  }
}
