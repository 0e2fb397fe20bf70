import { close, DescriptorBag, setNonblocking } from "../../ffi/fd.ts";
import { OsError } from "../../ffi/os_error.ts";
import { accept, listen, receive, send } from "../../ffi/socket.ts";
import { Native } from "../../ffi/native.ts";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/features.ts";
import { header, HeaderFlag } from "../../src/protocol/header.ts";
import { frontendMessages, messageName, type MessageRow } from "../../src/protocol/messages.ts";
import { codecOf, payloads } from "../../src/protocol/payloads.ts";
import { type Fault, leaks } from "./fake_faults.ts";
import { FakeMemory } from "./fake_memory.ts";
import { FakeRing } from "./fake_ring.ts";

// An entropy device that shares no code with the toolkit's back-end but the names of things, and that can be told to
// do one thing wrong.

const { VERSION_1, PROTOCOL_FEATURES, INDIRECT_DESC, EVENT_IDX } = ringFeatures;

/** The front-end is to be dropped. */
class Closed extends Error {}

/** A back-end to be checked. */
export class FakeBackEnd {
  readonly #fault: Fault | undefined;
  readonly #listener: number;
  readonly #sessions = new Set<Session>();
  readonly #timer: ReturnType<typeof setInterval>;
  #closed = false;
  #lastEnd = -Infinity;

  /** Listens. */
  constructor(path: string, fault?: Fault) {
    this.#fault = fault;
    this.#listener = listen(path);
    this.#timer = setInterval(() => this.#turn(), 1);
  }

  #turn(): void {
    for (let fd = accept(this.#listener); fd !== null; fd = accept(this.#listener)) {
      const early = performance.now() - this.#lastEnd < 20;
      const mute = this.#fault === "does not answer who comes at once" && early;
      const second = this.#fault === "dies of a second front-end" && this.#sessions.size > 0;
      this.#sessions.add(new Session(fd, this.#fault, mute));
      if (second) return this.close();
    }
    for (const session of this.#sessions) {
      const alive = session.turn();
      if (session.died) return this.close();
      if (!alive) {
        session.close();
        this.#sessions.delete(session);
        this.#lastEnd = performance.now();
      }
    }
  }

  /** Stops. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    close(this.#listener);
    for (const session of this.#sessions) session.close();
  }
}

/** One front-end. */
class Session {
  died = false;
  readonly #fd: number;
  readonly #fault: Fault | undefined;
  readonly #input = new Native(8192);
  readonly #output = new Native(8192);
  readonly #memory: FakeMemory;
  readonly #ring: FakeRing;
  #have = 0;
  #fds = new DescriptorBag();
  #protocol = 0n;
  #status = 0n;
  #asked = 0n;
  #channel = -1;
  #hung: boolean;
  #silent = true;
  #chosen = false;
  readonly #late: (() => void)[] = [];

  constructor(fd: number, fault: Fault | undefined, mute: boolean) {
    this.#fd = fd;
    this.#fault = fault;
    this.#hung = mute;
    this.#memory = new FakeMemory(fault);
    this.#ring = new FakeRing(this.#memory, fault);
  }

  #has(fault: Fault): boolean {
    return this.#fault === fault;
  }

  /** Does what there is to do. Returns false when the front-end is to be dropped. */
  turn(): boolean {
    if (this.#hung) return true;
    try {
      if (!this.#read()) return false;
      for (const each of this.#late.splice(0)) each();
      this.#ring.work();
      this.died ||= this.#ring.died;
      this.#hung ||= this.#ring.hung;
      return true;
    } catch (error) {
      if (error instanceof Closed || error instanceof OsError) return false;
      throw error;
    }
  }

  #read(): boolean {
    for (;;) {
      const size = this.#have >= 12 ? header.read(this.#input.view).size : 0;
      if (size > 4096) this.#wrongHeader();
      const wanted = 12 + size - this.#have;
      const got = receive(this.#fd, this.#input.address + BigInt(this.#have), wanted);
      this.#fds.append(got.fds);
      if (got.length < 0) return true;
      if (got.length === 0) {
        this.died ||= this.#has("dies of half a message") && this.#have > 0 ||
          this.#has("dies of a front-end that says nothing") && this.#silent;
        return false;
      }
      this.#silent = false;
      this.#have += got.length;
      if (this.#has("reads headers in one piece") && this.#have < 12) return false;
      if (this.#have >= 12 && this.#have === 12 + header.read(this.#input.view).size) this.#message();
    }
  }

  #wrongHeader(): never {
    this.died ||= this.#has("dies of a wrong header");
    throw new Closed();
  }

  #message(): void {
    const head = header.read(this.#input.view);
    const payload = this.#input.bytes.slice(12, this.#have);
    const fds = this.#fds;
    this.#have = 0;
    this.#fds = new DescriptorBag();
    try {
      this.#handle(head.request, head.flags, payload, fds);
    } finally {
      if (this.#has("leaks surplus descriptors")) leaks.push(...fds.takeAll());
      fds.close();
    }
  }

  #send(request: number, flags: number, payload: Uint8Array, fds: number[] = []): void {
    const view = this.#output.view;
    header.write(view, 0, { request, flags, size: payload.length });
    this.#output.bytes.set(payload, 12);
    try {
      const sent = send(this.#fd, this.#output.address, 12 + payload.length, fds);
      this.died ||= sent < 0 && this.#has("dies of an answer that nobody reads");
    } catch {
      throw new Closed();
    }
  }

  #handle(request: number, flags: number, payload: Uint8Array, fds: DescriptorBag): void {
    const name = messageName(frontendMessages, request) ?? "";
    const row: MessageRow | undefined = (frontendMessages as Record<string, MessageRow>)[name];
    const asks = (flags & HeaderFlag.NEED_REPLY) !== 0;
    const replyFlags = asks && this.#has("reply flags keep need_reply") ? 13 : 5;
    const acks = (this.#protocol & mask(protocolFeatures.REPLY_ACK)) !== 0n;
    const acknowledge = (value: bigint) => this.#send(request, replyFlags, payloads.u64.encode(value));
    if ((flags & ~HeaderFlag.NEED_REPLY) !== 1) this.#wrongHeader();
    this.#hung ||= row === undefined && this.#has("hangs after an unknown message") ||
      asks && !acks && this.#has("hangs after need_reply without REPLY_ACK");
    let answer: Uint8Array | undefined;
    let failed = false;
    try {
      if (row === undefined) throw new Error("unknown");
      const codec = codecOf(row.payload);
      if (payload.length < codec.minimum || payload.length > codec.maximum) throw new Error("length");
      if (row.requires !== undefined && (this.#protocol & mask(protocolFeatures[row.requires])) === 0n) {
        throw new Error("feature");
      }
      if (fds.length > (row.fds?.[1] ?? 0)) throw new Error("descriptors");
      answer = this.#act(name, codec.decode(payload), fds);
    } catch (error) {
      if (error instanceof Closed) throw error;
      failed = true;
    }
    if (this.#hung) return;
    const own = row !== undefined && row.reply !== "ack";
    if (failed) {
      if (row === undefined && this.#has("unknown messages are not answered")) return;
      if (own || !asks || !acks) throw new Closed();
      return acknowledge(row === undefined && this.#has("unknown messages succeed") ? 0n : 1n);
    }
    const late = this.#late.splice(0);
    if (answer !== undefined && name === "GET_PROTOCOL_FEATURES" && this.#has("answers out of order")) {
      this.#late.push(() => this.#send(request, replyFlags, answer));
    } else if (answer !== undefined) this.#send(request, replyFlags, answer);
    for (const each of late) each();
    const unasked = this.#has("acknowledges unasked") &&
      request !== frontendMessages.SET_PROTOCOL_FEATURES.id;
    if (own ? asks && this.#has("answers twice") : acks && (asks || unasked)) {
      if (!this.#has("no acknowledgements")) acknowledge(0n);
    }
  }

  /** Does what a message says. Returns the payload of its own answer. */
  // deno-lint-ignore no-explicit-any
  #act(name: string, value: any, fds: DescriptorBag): Uint8Array | undefined {
    const ring = this.#ring;
    let forgetful = false;
    const number = (each: bigint | number) => payloads.u64.encode(BigInt(each));
    if (/VRING/.test(name) && value.index !== 0) throw new Error("ring");
    switch (name) {
      case "GET_FEATURES": {
        const version = this.#has("offers no VERSION_1") ? 0n : mask(VERSION_1);
        const features = version | mask(PROTOCOL_FEATURES, INDIRECT_DESC, EVENT_IDX);
        return number(this.#has("features change") && this.#asked++ > 0n ? features | mask(35) : features);
      }
      case "SET_FEATURES":
        if ((value & ~mask(VERSION_1, PROTOCOL_FEATURES, INDIRECT_DESC, EVENT_IDX)) !== 0n) throw new Error();
        this.#chosen = true;
        ring.features = value;
        if ((value & mask(PROTOCOL_FEATURES)) === 0n) ring.enabled = true;
        return;
      case "GET_PROTOCOL_FEATURES":
        return number(this.#offered());
      case "SET_PROTOCOL_FEATURES":
        if ((value & ~this.#offered()) !== 0n) throw new Error();
        if (!this.#chosen && this.#has("wants SET_FEATURES before SET_PROTOCOL_FEATURES")) throw new Closed();
        this.#protocol = value;
        return;
      case "SET_OWNER":
        if (this.#has("fails SET_OWNER")) throw new Error();
        return;
      case "RESET_OWNER":
        return;
      case "GET_QUEUE_NUM":
        return number(1);
      case "SET_MEM_TABLE":
        if (fds.length !== value.length) throw new Error();
        ring.finish();
        this.#memory.drop();
        for (const region of value) this.#memory.map(region, fds.take() as number);
        return;
      case "GET_MAX_MEM_SLOTS":
        return number(32);
      case "ADD_MEM_REG":
        if (value === undefined || fds.length !== 1 || this.#memory.count >= 32) throw new Error();
        if (this.#has("knows no added memory")) return;
        this.#memory.map(value, fds.take() as number);
        return;
      case "REM_MEM_REG": {
        if (this.#has("keeps the descriptor of REM_MEM_REG")) leaks.push(...fds.takeAll());
        if (!this.#memory.remove(value)) throw new Error();
        return;
      }
      case "SET_VRING_NUM":
        if (value.num < 1 || value.num > 32768 || (value.num & (value.num - 1)) !== 0 || ring.started) {
          throw new Error();
        }
        ring.size = value.num;
        return;
      case "SET_VRING_ADDR":
        ring.address = value;
        if (
          this.#memory.count > 0 && this.#memory.area(value.descriptor, 16 * ring.size, "user") === undefined
        ) {
          ring.address = undefined;
          throw new Error();
        }
        return;
      case "SET_VRING_BASE":
        if (value.num > 0xffff || ring.started) throw new Error();
        ring.base = this.#has("ignores SET_VRING_BASE") ? 0 : value.num;
        return;
      case "GET_VRING_BASE": {
        if (!this.#has("answers GET_VRING_BASE too early")) ring.finish();
        if (ring.started) ring.base = ring.next;
        if (!this.#has("goes on after GET_VRING_BASE")) {
          ring.started = false;
          ring.setFd("kick", -1);
          ring.setFd("call", -1);
        }
        const num = this.#has("tells a wrong base") ? (ring.base + 1) & 0xffff : ring.base;
        return payloads.vringState.encode({ index: 0, num });
      }
      case "SET_VRING_KICK":
        if (fds.length !== (value.noDescriptor ? 0 : 1)) throw new Error();
        if (ring.size === 0 || ring.address === undefined) throw new Error();
        ring.setFd("kick", fds.take() ?? -1);
        if (!ring.started) ring.next = ring.base;
        ring.started = true;
        ring.poll = value.noDescriptor;
        ring.kicked = !this.#has("starts on the first kick only");
        return;
      case "SET_VRING_CALL":
      case "SET_VRING_ERR":
        if (fds.length !== (value.noDescriptor ? 0 : 1)) throw new Error();
        ring.setFd(name === "SET_VRING_CALL" ? "call" : "error", fds.take() ?? -1);
        return;
      case "SET_VRING_ENABLE":
        if (value.num > 1) throw new Error();
        forgetful = this.#has("forgets requests of a disabled ring") ||
          this.#has("starts on the first kick only");
        ring.enabled = value.num === 1;
        if (ring.enabled && !forgetful) ring.kicked = true;
        return;
      case "GET_CONFIG": {
        if (!this.#chosen && this.#has("wants SET_FEATURES before GET_CONFIG")) throw new Closed();
        const space = Uint8Array.from({ length: 256 }, (_, i) => i + 1);
        const from = this.#has("ignores the offset of GET_CONFIG") ? 0 : value.offset;
        return payloads.config.encode({ ...value, data: space.slice(from, from + value.data.length) });
      }
      case "SET_BACKEND_REQ_FD":
        if (fds.length !== 1) throw new Error();
        if (this.#channel >= 0) close(this.#channel);
        this.#channel = fds.take() as number;
        setNonblocking(this.#channel);
        if (this.#has("speaks on the channel while stopped")) {
          header.write(this.#output.view, 0, { request: 2, flags: 1, size: 0 });
          send(this.#channel, this.#output.address, 12);
        }
        return;
      case "SET_STATUS":
        if (!this.#has("forgets the status")) this.#status = value;
        return;
      case "GET_STATUS":
        return number(this.#status);
      case "RESET_DEVICE":
        if (this.#has("RESET_DEVICE leaves rings running")) return;
        ring.enabled = ring.started = false;
        return;
      default:
        throw new Error("unknown");
    }
  }

  #offered(): bigint {
    const { MQ, REPLY_ACK, BACKEND_REQ, CONFIG, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS } =
      protocolFeatures;
    if (this.#has("in-band notifications without a channel")) {
      return mask(MQ, REPLY_ACK, CONFIG, protocolFeatures.INBAND_NOTIFICATIONS);
    }
    return mask(MQ, REPLY_ACK, BACKEND_REQ, CONFIG, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS);
  }

  close(): void {
    close(this.#fd);
    this.#fds.close();
    this.#ring.close();
    this.#memory.drop();
    if (this.#channel >= 0) close(this.#channel);
  }
}
