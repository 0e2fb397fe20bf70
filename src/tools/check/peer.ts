/**
 * A front-end that looks closely at every answer, and can be told to misbehave.
 *
 * @module
 */

import type { DescriptorBag } from "../../../ffi/fd.ts";
import type { SharedMemory } from "../../frontend/shared_memory.ts";
import { has, type ProtocolFeature, protocolFeatures, ringFeatures } from "../../protocol/features.ts";
import { HeaderFlag, VERSION } from "../../protocol/header.ts";
import {
  type FrontendMessage,
  frontendMessages,
  type MessageRow,
  type PayloadOf,
  type ReplyOf,
} from "../../protocol/messages.ts";
import { codecOf, type MemoryRegion, payloads } from "../../protocol/payloads.ts";
import type { Message } from "../../transport/connection.ts";
import { fail } from "./finding.ts";
import { CheckRing } from "./ring.ts";
import { describe, type SendOptions, type Wire } from "./wire.ts";

type Rows = typeof frontendMessages;

/** The one right value of a reply's flags: version and reply bit, nothing else. */
export const REPLY_FLAGS = VERSION | HeaderFlag.REPLY;
/** The flags of a request that asks for an acknowledgement. */
export const ASKING = VERSION | HeaderFlag.NEED_REPLY;

/**
 * What a back-end does with a message that it may refuse:
 * - `accepted`: answered as a success
 * - `dropped`: answered as a success, and then ended the connection
 * - `refused`: answered as a failure
 * - `closed`: ended the connection
 * - `passed over`: went on; without REPLY_ACK that is all one can see
 */
export type Reaction = "accepted" | "dropped" | "refused" | "closed" | "passed over";

/** Bytes of a message's payload. */
export function encode<K extends FrontendMessage>(
  name: K,
  payload: PayloadOf<Rows[K]>,
): Uint8Array<ArrayBuffer> {
  return codecOf(frontendMessages[name].payload).encode(payload);
}

/** How a ring is started. */
export interface RingOptions {
  /** Entries; 64 by default. */
  readonly size?: number;
  /** Position to start at; 0 by default. */
  readonly start?: number;
  /** Whether to send SET_VRING_ENABLE; as the negotiation asks by default. */
  readonly enable?: boolean;
  /** Whether the ring is polled rather than kicked. */
  readonly poll?: boolean;
  /** Whether to send SET_VRING_CALL with a descriptor; true by default. */
  readonly call?: boolean;
  /** Whether to kick once after the start, as front-ends should; true by default. */
  readonly inject?: boolean;
  /** Whether to send SET_VRING_KICK at all; true by default. */
  readonly kick?: boolean;
  /** User address of the memory's first byte, where that is not its address here. */
  readonly userBase?: bigint;
}

/** A ring that the back-end can be told of. */
export type Startable = Pick<
  CheckRing,
  "index" | "size" | "descriptor" | "available" | "used" | "kickFd" | "callFd" | "errorFd" | "kick"
>;

/** A session with the back-end. */
export class Peer {
  /** The connection. */
  readonly wire: Wire;
  /** Protocol features that were accepted. */
  protocol = 0n;
  /** Features of ring and device that were accepted. */
  features = 0n;
  readonly #own: (ring: CheckRing) => void;

  /** A session in which nothing has been said; `own` is given every ring, to close it in the end. */
  constructor(wire: Wire, own: (ring: CheckRing) => void) {
    this.wire = wire;
    this.#own = own;
  }

  /** Whether a protocol feature was accepted. */
  negotiated(feature: ProtocolFeature): boolean {
    return has(this.protocol, protocolFeatures[feature]);
  }

  /** Sends a message without waiting for anything. */
  async tell<K extends FrontendMessage>(
    name: K,
    payload: PayloadOf<Rows[K]>,
    options: SendOptions = {},
  ): Promise<void> {
    const [{ id }, bytes] = [frontendMessages[name], encode(name, payload)];
    const { flags = VERSION, size, fds } = options;
    if (size !== undefined || (flags & ~ASKING) !== 0) await this.wire.send(id, bytes, options);
    else await this.wire.say(id, bytes, flags & HeaderFlag.NEED_REPLY, fds);
  }

  /**
   * The next message, which must be the answer to a request, right in every way that the table knows.
   *
   * @throws {CaseEnd} when it is not
   */
  async answer(name: FrontendMessage): Promise<Message> {
    const message = await this.wire.next();
    if (message === "nothing") fail(`an answer to ${name}`, "nothing came");
    if (message === "end") fail(`an answer to ${name}`, "the connection was closed");
    const row: MessageRow = frontendMessages[name];
    if (message.header.request !== row.id) {
      message.fds.close();
      fail(`the answer to ${name}`, describe(message));
    }
    const { flags } = message.header;
    if (flags !== REPLY_FLAGS) {
      message.fds.close();
      const why = (flags & HeaderFlag.NEED_REPLY) !== 0 ? ", with need_reply, which only a request has" : "";
      fail(`flags 0x${REPLY_FLAGS} in the answer to ${name}`, `flags 0x${flags.toString(16)}${why}`);
    }
    const codec = codecOf(row.reply === "ack" || row.reply === "always ack" ? "u64" : row.reply);
    const { length } = message.payload;
    // The document does not say what SET_LOG_BASE is answered with; 0, 8 and 16 bytes are in use.
    const settled = name !== "SET_LOG_BASE";
    if (settled && (length < codec.minimum || length > codec.maximum)) {
      message.fds.close();
      const size = codec.minimum === codec.maximum ? codec.minimum : `${codec.minimum} to ${codec.maximum}`;
      fail(`${size} bytes in the answer to ${name}`, `${length} bytes`);
    }
    const most = row.replyFds?.[1] ?? 0;
    if (message.fds.length > most) {
      const came = message.fds.length;
      message.fds.close();
      fail(`at most ${most} descriptors with the answer to ${name}`, `${came}`);
    }
    return message;
  }

  /**
   * Asks for something that is always answered.
   *
   * @throws {CaseEnd} when the answer is wrong
   */
  async ask<K extends FrontendMessage>(
    name: K,
    payload: PayloadOf<Rows[K]>,
    options: SendOptions = {},
  ): Promise<{ value: ReplyOf<Rows[K]>; fds: DescriptorBag }> {
    await this.tell(name, payload, options);
    const message = await this.answer(name);
    const { reply }: MessageRow = frontendMessages[name];
    if (reply === "ack" || reply === "always ack") {
      const status = payloads.u64.decode(message.payload);
      if (status !== 0n) fail(`0, for success, in the answer to ${name}`, `${status}`);
      return { value: undefined as ReplyOf<Rows[K]>, fds: message.fds };
    }
    try {
      return { value: codecOf(reply).decode(message.payload) as ReplyOf<Rows[K]>, fds: message.fds };
    } catch (error) {
      message.fds.close();
      fail(`a right answer to ${name}`, (error as Error).message);
    }
  }

  /** Asks for a number. */
  async number(
    name: "GET_FEATURES" | "GET_PROTOCOL_FEATURES" | "GET_QUEUE_NUM" | "GET_MAX_MEM_SLOTS" | "GET_STATUS",
  ): Promise<bigint> {
    const { value, fds } = await this.ask(name, undefined);
    fds.close();
    return value;
  }

  /**
   * Sends what a back-end must accept, and sees that it does where REPLY_ACK allows that.
   *
   * @throws {CaseEnd} when it says that it failed
   */
  async set<K extends FrontendMessage>(
    name: K,
    payload: PayloadOf<Rows[K]>,
    fds: readonly number[] = [],
  ): Promise<void> {
    if (!this.negotiated("REPLY_ACK")) return await this.tell(name, payload, { fds });
    const answer = await this.ask(name, payload, { fds, flags: ASKING });
    answer.fds.close();
  }

  /**
   * Sends what a back-end may refuse. It must say so when it is asked, or close the connection.
   *
   * @param bytes of the payload
   * @throws {CaseEnd} when it does neither
   */
  async attempt(
    name: FrontendMessage,
    bytes: Uint8Array,
    options: SendOptions = {},
  ): Promise<Reaction> {
    const row: MessageRow = frontendMessages[name];
    return await this.#attempt(row.id, bytes, options, row);
  }

  /** The same for a message that the table does not know. */
  async attemptUnknown(id: number, bytes: Uint8Array): Promise<Reaction> {
    return await this.#attempt(id, bytes, {}, undefined);
  }

  async #attempt(
    id: number,
    bytes: Uint8Array,
    options: SendOptions,
    row: MessageRow | undefined,
  ): Promise<Reaction> {
    const asked = this.negotiated("REPLY_ACK");
    const acknowledged = row === undefined || row.reply === "ack" || row.reply === "always ack";
    const waits = asked || row !== undefined && row.reply !== "ack";
    await this.wire.send(id, bytes, { flags: asked && acknowledged ? ASKING : VERSION, ...options });
    if (!waits) return await this.#stillThere();
    const message = await this.wire.next();
    if (message === "end") return "closed";
    if (message === "nothing") {
      if (asked && acknowledged) {
        fail("success or failure, for need_reply was set; or the end", "nothing came");
      }
      // What would be answered with a payload of its own may also be passed over.
      return await this.#stillThere();
    }
    message.fds.close();
    if (message.header.request !== id) fail(`the answer to message ${id}`, describe(message));
    if (message.header.flags !== REPLY_FLAGS) {
      fail(`flags 0x${REPLY_FLAGS} in the answer`, describe(message));
    }
    if (row !== undefined && row.reply !== "ack" && row.reply !== "always ack") {
      const { minimum } = codecOf(row.reply);
      // An own answer has two ways to say no: no payload, and the plain acknowledgement of failure.
      return message.payload.length >= minimum ? await this.#acceptance() : "refused";
    }
    if (message.payload.length !== 8) fail("8 bytes of acknowledgement", describe(message));
    return payloads.u64.decode(message.payload) === 0n ? await this.#acceptance() : "refused";
  }

  /** What an answer of success is worth. */
  async #acceptance(): Promise<Reaction> {
    return await this.#stillThere() === "closed" ? "dropped" : "accepted";
  }

  async #stillThere(): Promise<Reaction> {
    await this.tell("GET_FEATURES", undefined);
    const message = await this.wire.next();
    if (message === "end") return "closed";
    if (message === "nothing") fail("an answer to GET_FEATURES afterwards", "nothing came");
    message.fds.close();
    if (message.header.request !== frontendMessages.GET_FEATURES.id) {
      fail("no answer but that to GET_FEATURES", describe(message));
    }
    return "passed over";
  }

  /**
   * Sees that everything before was handled, and that no answer came that nobody asked for.
   *
   * @throws {CaseEnd} when one did
   */
  async barrier(): Promise<void> {
    await this.tell("GET_FEATURES", undefined);
    const message = await this.wire.next();
    if (message === "nothing") fail("an answer to GET_FEATURES afterwards", "nothing came");
    if (message === "end") fail("an answer to GET_FEATURES afterwards", "the connection was closed");
    message.fds.close();
    if (message.header.request !== frontendMessages.GET_FEATURES.id) {
      fail("no other answer before that to GET_FEATURES", describe(message));
    }
  }

  /** Whether the back-end still answers on this connection. */
  async answers(): Promise<boolean> {
    return await this.#stillThere() === "passed over";
  }

  /** Negotiates: features, protocol features, owner. */
  async negotiate(features: bigint, protocol: bigint, owner = true): Promise<void> {
    const offered = await this.number("GET_FEATURES");
    if (has(offered, ringFeatures.PROTOCOL_FEATURES)) {
      const offeredProtocol = await this.number("GET_PROTOCOL_FEATURES");
      await this.tell("SET_PROTOCOL_FEATURES", protocol & offeredProtocol);
      this.protocol = protocol & offeredProtocol;
    }
    // That these are acknowledged when that is asked for is a case of its own.
    if (owner) await this.tell("SET_OWNER", undefined);
    this.features = features & offered;
    await this.tell("SET_FEATURES", this.features);
  }

  /** SET_FEATURES. */
  async setFeatures(features: bigint): Promise<void> {
    await this.set("SET_FEATURES", features);
    this.features = features;
  }

  /** Shares memory as the whole table. */
  async share(...memories: SharedMemory[]): Promise<void> {
    await this.set("SET_MEM_TABLE", memories.map((each) => regionOf(each)), memories.map(({ fd }) => fd));
  }

  /** Lays a ring out and tells the back-end of it, up to the start. */
  async setUp(index: number, memory: SharedMemory, options: RingOptions = {}): Promise<CheckRing> {
    const { size = 64, start = 0, userBase } = options;
    const ring = new CheckRing(index, memory, size, start);
    this.#own(ring);
    await this.announce(ring, start, userBase === undefined ? 0n : userBase - memory.userAddress);
    return ring;
  }

  /**
   * Tells the back-end of a ring.
   *
   * @param base where it is to begin
   * @param shift what to add to our own addresses
   */
  async announce(ring: Startable, base: number, shift = 0n): Promise<void> {
    const { index, size } = ring;
    await this.set("SET_VRING_NUM", { index, num: size });
    await this.set("SET_VRING_BASE", { index, num: base });
    await this.set("SET_VRING_ADDR", addressOf(ring, shift));
  }

  /** Starts a ring that was stopped, from a position, the way that front-ends do: everything is said again. */
  async restart(ring: Startable, base: number, options: RingOptions = {}): Promise<void> {
    await this.announce(ring, base);
    await this.start(ring, options);
  }

  /** Gives a ring its doorbells and starts it. */
  async start(ring: Startable, options: RingOptions = {}): Promise<void> {
    const { poll = false, call = true, inject = true, kick = true } = options;
    const { enable = has(this.features, ringFeatures.PROTOCOL_FEATURES) } = options;
    const which = { index: ring.index, noDescriptor: false };
    await this.set("SET_VRING_ERR", which, [ring.errorFd]);
    await this.set(
      "SET_VRING_CALL",
      { index: ring.index, noDescriptor: !call },
      call ? [ring.callFd] : [],
    );
    if (kick) {
      await this.set(
        "SET_VRING_KICK",
        { index: ring.index, noDescriptor: poll },
        poll ? [] : [ring.kickFd],
      );
    }
    if (enable) await this.enable(ring, true);
    if (kick && inject && !poll) ring.kick();
  }

  /** SET_VRING_ENABLE. */
  async enable(ring: Startable, enabled: boolean): Promise<void> {
    await this.set("SET_VRING_ENABLE", { index: ring.index, num: enabled ? 1 : 0 });
  }

  /** GET_VRING_BASE: stops a ring and returns where it would go on. */
  async stop(ring: Startable): Promise<number> {
    const { value } = await this.ask("GET_VRING_BASE", { index: ring.index, num: 0 });
    if (value.index !== ring.index) {
      fail(`ring ${ring.index} in the answer to GET_VRING_BASE`, `ring ${value.index}`);
    }
    return value.num;
  }
}

/** A part of memory as a region; all of it by default. */
export function regionOf(
  memory: SharedMemory,
  offset = 0,
  size: number = memory.byteLength - offset,
): MemoryRegion {
  return {
    guestAddress: BigInt(memory.guestAddress + offset),
    size: BigInt(size),
    userAddress: memory.userAddress + BigInt(offset),
    mmapOffset: BigInt(offset),
  };
}

/** Where a ring is, as SET_VRING_ADDR says it; with user addresses moved by `shift`. */
export function addressOf(ring: Startable, shift = 0n): PayloadOf<Rows["SET_VRING_ADDR"]> {
  return {
    index: ring.index,
    flags: 0,
    descriptor: ring.descriptor.userAddress + shift,
    used: ring.used.userAddress + shift,
    available: ring.available.userAddress + shift,
    log: 0n,
  };
}
