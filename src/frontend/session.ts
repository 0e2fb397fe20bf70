/**
 * One connection with a back-end: what was negotiated on it, and the rules for its messages.
 *
 * @module
 */

import { close } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { socketPair } from "../../ffi/socket.ts";
import { ProtocolError } from "../protocol/error.ts";
import {
  DeviceStatus,
  featureNames,
  has,
  type ProtocolFeature,
  protocolFeatures,
  type RingFeature,
  ringFeatures,
} from "../protocol/features.ts";
import {
  backendMessages,
  type DescriptorsOf,
  type FrontendMessage,
  frontendMessages,
  type MessageRow,
  type PayloadOf,
  type ReplyOf,
} from "../protocol/messages.ts";
import { Connection, type Tap } from "../transport/connection.ts";
import { type Answer, Requester } from "../transport/requester.ts";
import { type Handlers, Responder } from "../transport/responder.ts";

/** What a front-end wants of a back-end. */
export interface Wishes {
  /** Features of ring and device to accept when they are offered. */
  readonly features: bigint;
  /** Protocol features to accept when they are offered. */
  readonly protocolFeatures: bigint;
  /** Protocol features without which there is no session. */
  readonly needed: readonly ProtocolFeature[];
  /** Whether nothing of that may be missing: an earlier back-end had it, and it is in use. */
  readonly all: boolean;
}

/** A back-end that offers less than the one before it, so that it cannot go on with what that has begun. */
export class LostFeaturesError extends Error {
  /** The error's class name. */
  override readonly name = "LostFeaturesError";

  /** Names what is lost. */
  constructor(lost: string) {
    super(`the back-end that has come back lacks what is in use: ${lost}`);
  }
}

/** What each of these protocol features is nothing without (vhost-user, "Protocol features"). */
const NEEDS: readonly (readonly [ProtocolFeature, ProtocolFeature])[] = [
  ["INBAND_NOTIFICATIONS", "REPLY_ACK"],
  ["INBAND_NOTIFICATIONS", "BACKEND_REQ"],
  ["BACKEND_SEND_FD", "BACKEND_REQ"],
  ["GET_VRING_BASE_INFLIGHT", "INFLIGHT_SHMFD"],
];

/** Takes away the features whose needs are not met. */
function withNeeds(features: bigint): bigint {
  const bit = (name: ProtocolFeature): bigint => 1n << BigInt(protocolFeatures[name]);
  return NEEDS.reduce((left, [name, need]) => left & bit(need) ? left : left & ~bit(name), features);
}

function checkNoneLost(wanted: bigint, offered: bigint, names: Readonly<Record<string, number>>): void {
  const lost = wanted & ~offered;
  if (lost !== 0n) throw new LostFeaturesError(featureNames(lost, names).join(", "));
}

/** What a session needs of its front-end. */
export interface SessionContext {
  /** Waiting. */
  readonly reactor: Reactor;
  /** Called with every message that crosses the connection. */
  readonly tap: Tap | undefined;
  /** Serves the back-end channel. */
  readonly channel: Handlers<typeof backendMessages>;
  /** A message of the channel was refused, or its handler has failed. */
  onChannelFailure(error: unknown): void;
  /** The connection has ended, with a reason unless the back-end just left. Called once. */
  onEnd(session: FrontEndSession, error: unknown): void;
}

/** A connection with a back-end, owned. */
export class FrontEndSession {
  /** Features that the back-end offers, of ring and device. */
  offered = 0n;
  /** Features accepted by both sides, of ring and device. */
  features = 0n;
  /** Protocol features accepted by both sides. */
  protocolFeatures = 0n;
  /** Whether it is over. */
  ended = false;
  readonly #context: SessionContext;
  readonly #requester: Requester<typeof frontendMessages>;
  #channel: Responder<typeof backendMessages> | undefined;

  /** Takes over a connected socket. */
  constructor(fd: number, context: SessionContext) {
    this.#context = context;
    const connection = new Connection(fd, frontendMessages);
    connection.tap = context.tap;
    this.#requester = new Requester(connection, frontendMessages, context.reactor, (error) => {
      this.ended = true;
      this.#channel?.end();
      context.onEnd(this, error);
    });
  }

  /** The connection. */
  get connection(): Connection {
    return this.#requester.connection;
  }

  /** Whether a protocol feature was negotiated. */
  negotiated(feature: ProtocolFeature): boolean {
    return has(this.protocolFeatures, protocolFeatures[feature]);
  }

  /** Whether a feature of the ring was accepted. */
  accepted(feature: RingFeature): boolean {
    return has(this.features, ringFeatures[feature]);
  }

  /** Why a message may not be sent, or `undefined` when it may. */
  refusal({ requires, requiresRing }: MessageRow): string | undefined {
    if (requires !== undefined && !this.negotiated(requires)) {
      return `protocol feature ${requires} was not negotiated`;
    }
    if (requiresRing === undefined || this.accepted(requiresRing)) return undefined;
    // It need not be accepted: to offer it is to understand the messages (vhost-user, "Protocol features").
    if (requiresRing === "PROTOCOL_FEATURES" && has(this.offered, ringFeatures.PROTOCOL_FEATURES)) {
      return undefined;
    }
    return `feature ${requiresRing} was not negotiated`;
  }

  /**
   * Sends a message, and waits until the back-end has handled it: for its answer, for the acknowledgement (REPLY_ACK), or
   * else for the answer to a GET_FEATURES that is sent after it.
   *
   * @param fds the back-end gets copies
   * @throws {ProtocolError} when the message may not be sent, the back-end says that it failed, answers wrongly or leaves
   */
  async request<K extends FrontendMessage>(
    name: K,
    payload: PayloadOf<(typeof frontendMessages)[K]>,
    ...descriptors: DescriptorsOf<(typeof frontendMessages)[K]>
  ): Promise<Answer<ReplyOf<(typeof frontendMessages)[K]>>> {
    const [fds = []] = descriptors as [fds?: readonly number[]];
    const row: MessageRow = frontendMessages[name];
    const refusal = this.refusal(row);
    if (refusal !== undefined) throw new ProtocolError(name, `cannot be sent: ${refusal}`);
    const [fewest, most] = row.fds ?? [0, 0];
    if (fds.length < fewest || fds.length > most) {
      const expected = fewest === most ? `${fewest}` : `${fewest} to ${most}`;
      throw new ProtocolError(name, `descriptors: expected ${expected}, got ${fds.length}`);
    }
    const answer = await this.#requester.request(name, payload, fds);
    if (row.reply === "ack" && !this.#requester.replyAck) await this.#barrier(name);
    return answer;
  }

  /** Waits until the back-end has handled what was sent before. One that could not has ended the connection. */
  async #barrier(name: string): Promise<void> {
    try {
      await this.#requester.request("GET_FEATURES", undefined);
    } catch (error) {
      const failure = new ProtocolError(name, "the back-end did not go on after it");
      failure.cause = error;
      throw failure;
    }
  }

  /** The same for a message whose answer is not the usual one, as while a postcopy migration arrives. */
  exchange<K extends FrontendMessage>(
    name: K,
    payload: PayloadOf<(typeof frontendMessages)[K]>,
    fds: readonly number[],
    reply: MessageRow["reply"] | undefined,
  ): Promise<Answer<unknown>> {
    return this.#requester.exchange(name, payload, fds, reply);
  }

  /**
   * The first messages: features, protocol features, owner and back-end channel.
   *
   * @throws {LostFeaturesError} when something is missing that must not be
   * @throws {ProtocolError} when the back-end does not answer by the rules
   */
  async negotiate(wishes: Wishes): Promise<void> {
    const { value: offered } = await this.request("GET_FEATURES", undefined);
    this.offered = offered;
    if (wishes.all) checkNoneLost(wishes.features, offered, ringFeatures);
    if (has(offered, ringFeatures.PROTOCOL_FEATURES)) {
      const { value } = await this.request("GET_PROTOCOL_FEATURES", undefined);
      if (wishes.all) checkNoneLost(wishes.protocolFeatures, value, protocolFeatures);
      const accepted = withNeeds(value & wishes.protocolFeatures);
      // Whether it has an answer of its own is agreed on only by it.
      await this.#requester.request("SET_PROTOCOL_FEATURES", accepted);
      this.protocolFeatures = accepted;
      this.#requester.replyAck = this.negotiated("REPLY_ACK");
    } else if (wishes.all) {
      checkNoneLost(wishes.protocolFeatures, 0n, protocolFeatures);
    }
    for (const feature of wishes.needed) {
      if (this.negotiated(feature)) continue;
      const what = `${feature} (bit ${protocolFeatures[feature]})`;
      throw new ProtocolError("GET_PROTOCOL_FEATURES", `the back-end must offer ${what}, which is needed`);
    }
    await this.request("SET_OWNER", undefined);
    if (this.negotiated("BACKEND_REQ")) await this.#openChannel();
    this.features = offered & wishes.features;
    await this.acceptFeatures();
  }

  /** Tells the features; after a reset once more. */
  async acceptFeatures(): Promise<void> {
    await this.request("SET_FEATURES", this.features);
    await this.setStatus(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK);
  }

  /** Sets the device status, where the back-end keeps one. */
  async setStatus(status: number): Promise<void> {
    if (this.negotiated("STATUS")) await this.request("SET_STATUS", BigInt(status));
  }

  async #openChannel(): Promise<void> {
    const [ours, theirs] = socketPair();
    this.#channel = new Responder(
      new Connection(ours, backendMessages),
      backendMessages,
      this.#context.channel,
      this.#context.reactor,
      {
        replyAck: () => this.negotiated("REPLY_ACK"),
        refuse: (row) => this.refusal(row),
        onFailure: (error) => this.#context.onChannelFailure(error),
        // A back-end that asks for something that is not served here is told so, if it wants to know.
        forgives: true,
        onEnd: (error) => {
          if (error !== undefined && !this.ended) this.#context.onChannelFailure(error);
        },
      },
    );
    try {
      await this.request("SET_BACKEND_REQ_FD", undefined, [theirs]);
    } finally {
      close(theirs);
    }
  }

  /** Ends the connection; requests under way fail. */
  end(error?: unknown): void {
    this.#requester.end(error);
  }
}
