import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { OsError } from "../../mod.ts";
import { connect } from "../../ffi/socket.ts";
import { Connection, type Message } from "../../src/frontend/mod.ts";
import { type FrontendMessage, frontendMessages } from "../../src/protocol/mod.ts";
import { concat, number64, sendMessage, u32, u64 } from "./wire.ts";

/** How long the back-end may take to say something, milliseconds: a machine may have much else to do. */
const PATIENCE = 20_000;

/** Flags of a request without wishes, and of one that asks for an acknowledgement. */
export const PLAIN = 0x1;
export const NEED_REPLY = 0x9;
const REPLY = 0x5;

export const REPLY_ACK = 0x8n;
/** MQ, REPLY_ACK, BACKEND_REQ, CONFIG, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS. */
const USUAL_PROTOCOL = 0x1_a229n;
/** INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES, VERSION_1, and all of the device type. */
const USUAL_FEATURES = 0x1_70ff_ffffn;

/** A message as bytes. `size` is what the header says, by default the truth. */
export function messageBytes(
  name: FrontendMessage | number,
  payload: Uint8Array = new Uint8Array(0),
  flags: number = PLAIN,
  size: number = payload.length,
): Uint8Array<ArrayBuffer> {
  const id = typeof name === "number" ? name : frontendMessages[name].id;
  return concat(u32(id, flags, size), payload);
}

/** A front-end that says what it is told to, right or wrong. */
export class RawPeer {
  /** The socket. */
  readonly fd: number;
  readonly #connection: Connection;

  private constructor(fd: number) {
    this.fd = fd;
    this.#connection = new Connection(fd, frontendMessages);
  }

  /** Connects and says nothing. */
  static connect(path: string): RawPeer {
    return new RawPeer(connect(path));
  }

  /** Takes a connected socket over. */
  static on(fd: number): RawPeer {
    return new RawPeer(fd);
  }

  /** Sends bytes in one piece. */
  bytes(bytes: Uint8Array, fds: readonly number[] = []): void {
    assert.equal(sendMessage(this.fd, bytes, fds), bytes.length, "all bytes go out at once");
  }

  /** Sends a message and does not wait. */
  say(
    name: FrontendMessage | number,
    payload?: Uint8Array,
    fds: readonly number[] = [],
    flags: number = PLAIN,
  ): void {
    this.bytes(messageBytes(name, payload, flags), fds);
  }

  /** What the back-end sends next, or `"end"` when it has closed the connection. */
  async next(): Promise<Message | "end"> {
    for (const deadline = performance.now() + PATIENCE;;) {
      try {
        const message = this.#connection.receive();
        if (message !== null) return message;
      } catch (error) {
        // The back-end has closed while something of ours was unread.
        if (error instanceof OsError && error.code === "ECONNRESET") return "end";
        throw error;
      }
      assert.ok(performance.now() < deadline, "the back-end says nothing");
      await sleep(1);
    }
  }

  /** Expects the answer to a message and returns its payload. */
  async answer(name: FrontendMessage | number): Promise<Uint8Array> {
    const message = await this.next();
    assert.notEqual(message, "end", `an answer to ${name}, not the end`);
    const { header, payload, fds } = message as Message;
    const id = typeof name === "number" ? name : frontendMessages[name].id;
    assert.deepEqual([header.request, header.flags], [id, REPLY], "id and flags of the answer");
    assert.equal(fds.length, 0, "no descriptor with the answer");
    return payload;
  }

  /** Asks, and returns the answer's payload. */
  ask(name: FrontendMessage | number, payload?: Uint8Array, flags?: number): Promise<Uint8Array> {
    this.say(name, payload, [], flags);
    return this.answer(name);
  }

  /** Asks for a number. */
  async number(name: FrontendMessage, payload?: Uint8Array): Promise<bigint> {
    const answer = await this.ask(name, payload);
    assert.equal(answer.length, 8);
    return number64(answer);
  }

  /** Asks for an acknowledgement: 0 for success. Works once REPLY_ACK is negotiated. */
  async ack(
    name: FrontendMessage | number,
    payload?: Uint8Array,
    fds: readonly number[] = [],
  ): Promise<bigint> {
    this.say(name, payload, fds, NEED_REPLY);
    const answer = await this.answer(name);
    assert.equal(answer.length, 8);
    return number64(answer);
  }

  /** Expects that the back-end closes the connection without a further word. */
  async end(): Promise<void> {
    const message = await this.next();
    assert.equal(message === "end" ? message : message.name, "end");
  }

  /** Negotiates: the usual features of protocol and ring and all of the device; or those given, if they are offered. */
  async negotiate(
    protocol: bigint = USUAL_PROTOCOL,
    without = 0n,
    wanted: bigint = USUAL_FEATURES,
  ): Promise<void> {
    const features = await this.number("GET_FEATURES");
    const offered = await this.number("GET_PROTOCOL_FEATURES");
    this.say("SET_PROTOCOL_FEATURES", u64(offered & protocol));
    this.say("SET_OWNER");
    this.say("SET_FEATURES", u64(features & wanted & ~without));
  }

  /** Leaves. */
  close(): void {
    this.#connection.close();
  }
}
