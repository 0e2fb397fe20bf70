import { consume, signal } from "../../ffi/eventfd.ts";
import { close, DescriptorBag, setNonblocking } from "../../ffi/fd.ts";
import { OsError } from "../../ffi/os_error.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { accept, listen, receive, send } from "../../ffi/socket.ts";
import { Native } from "../../ffi/native.ts";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/features.ts";
import { header, HeaderFlag } from "../../src/protocol/header.ts";
import { frontendMessages, messageName, type MessageRow } from "../../src/protocol/messages.ts";
import { codecOf, type MemoryRegion, payloads, type VringAddress } from "../../src/protocol/payloads.ts";

// An entropy device that shares no code with the toolkit's back-end but the names of things, and that can be told to
// do one thing wrong.

/** What it can do wrong. */
export const faults = [
  "reply flags keep need_reply",
  "no acknowledgements",
  "acknowledges unasked",
  "answers twice",
  "unknown messages succeed",
  "unknown messages are not answered",
  "reads headers in one piece",
  "leaks surplus descriptors",
  "keeps the descriptor of REM_MEM_REG",
  "features change",
  "in-band notifications without a channel",
  "starts on the first kick only",
  "does not poll",
  "forgets requests of a disabled ring",
  "tells a wrong base",
  "ignores SET_VRING_BASE",
  "answers GET_VRING_BASE too early",
  "goes on after GET_VRING_BASE",
  "ignores mmap offsets",
  "knows one region only",
  "knows no added memory",
  "never calls",
  "used_event off by one",
  "suppresses kicks for ever",
  "returns the wrong head",
  "returns heads twice",
  "writes past its room",
  "tells more than it wrote",
  "changes the descriptor table",
  "knows no long chains",
  "knows no indirect tables",
  "minds WRITE on a table",
  "ignores the offset of GET_CONFIG",
  "forgets the status",
  "RESET_DEVICE leaves rings running",
  "speaks on the channel while stopped",
  "dies of a loop",
  "hangs in a loop",
  "gives no random bytes",
  "fails SET_OWNER",
  "answers out of order",
  "dies of a wrong header",
  "hangs after an unknown message",
  "hangs after need_reply without REPLY_ACK",
  "dies of half a message",
  "dies of an answer that nobody reads",
  "dies of a front-end that says nothing",
  "dies of a second front-end",
  "does not answer who comes at once",
  "offers no VERSION_1",
  "wants SET_FEATURES before SET_PROTOCOL_FEATURES",
  "wants SET_FEATURES before GET_CONFIG",
] as const;

/** One of {@link faults}. */
export type Fault = (typeof faults)[number];

const { VERSION_1, PROTOCOL_FEATURES, INDIRECT_DESC, EVENT_IDX } = ringFeatures;

interface Region {
  readonly place: MemoryRegion;
  readonly mapping: Mapping;
}

/** The front-end is to be dropped. */
class Closed extends Error {}

/** One ring. */
interface Ring {
  size: number;
  address: VringAddress | undefined;
  base: number;
  next: number;
  enabled: boolean;
  started: boolean;
  kicked: boolean;
  poll: boolean;
  pending: (() => void)[];
  kick: number;
  call: number;
  error: number;
}

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
  readonly #regions: Region[] = [];
  readonly #ring: Ring = {
    size: 0,
    address: undefined,
    base: 0,
    next: 0,
    enabled: false,
    started: false,
    kicked: false,
    poll: false,
    pending: [],
    kick: -1,
    call: -1,
    error: -1,
  };
  #have = 0;
  #fds = new DescriptorBag();
  #features = 0n;
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
      this.#work();
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
        this.#features = value;
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
        this.#dropMemory();
        for (const region of value) this.#map(region, fds.take() as number);
        return;
      case "GET_MAX_MEM_SLOTS":
        return number(32);
      case "ADD_MEM_REG":
        if (value === undefined || fds.length !== 1 || this.#regions.length >= 32) throw new Error();
        if (this.#has("knows no added memory")) return;
        this.#map(value, fds.take() as number);
        return;
      case "REM_MEM_REG": {
        const at = this.#regions.findIndex(({ place }) =>
          place.guestAddress === value.guestAddress && place.size === value.size &&
          place.userAddress === value.userAddress
        );
        if (this.#has("keeps the descriptor of REM_MEM_REG")) leaks.push(...fds.takeAll());
        if (at < 0) throw new Error();
        this.#regions.splice(at, 1)[0].mapping.unmap();
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
        if (this.#regions.length > 0 && this.#area(value.descriptor, 16 * ring.size, "user") === undefined) {
          ring.address = undefined;
          throw new Error();
        }
        return;
      case "SET_VRING_BASE":
        if (value.num > 0xffff || ring.started) throw new Error();
        ring.base = this.#has("ignores SET_VRING_BASE") ? 0 : value.num;
        return;
      case "GET_VRING_BASE": {
        if (!this.#has("answers GET_VRING_BASE too early")) this.#finish();
        if (ring.started) ring.base = ring.next;
        if (!this.#has("goes on after GET_VRING_BASE")) {
          ring.started = false;
          this.#setFd("kick", -1);
          this.#setFd("call", -1);
        }
        const num = this.#has("tells a wrong base") ? (ring.base + 1) & 0xffff : ring.base;
        return payloads.vringState.encode({ index: 0, num });
      }
      case "SET_VRING_KICK":
        if (fds.length !== (value.noDescriptor ? 0 : 1)) throw new Error();
        if (ring.size === 0 || ring.address === undefined) throw new Error();
        this.#setFd("kick", fds.take() ?? -1);
        if (!ring.started) ring.next = ring.base;
        ring.started = true;
        ring.poll = value.noDescriptor;
        ring.kicked = !this.#has("starts on the first kick only");
        return;
      case "SET_VRING_CALL":
      case "SET_VRING_ERR":
        if (fds.length !== (value.noDescriptor ? 0 : 1)) throw new Error();
        this.#setFd(name === "SET_VRING_CALL" ? "call" : "error", fds.take() ?? -1);
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

  #setFd(which: "kick" | "call" | "error", fd: number): void {
    if (this.#ring[which] >= 0) close(this.#ring[which]);
    this.#ring[which] = fd;
    if (fd >= 0) setNonblocking(fd);
  }

  #map(place: MemoryRegion, fd: number): void {
    try {
      if (this.#has("knows one region only") && this.#regions.length === 1) return;
      const offset = this.#has("ignores mmap offsets") ? 0 : Number(place.mmapOffset);
      const start = Math.floor(offset / 4096) * 4096;
      const mapping = new Mapping(fd, Number(place.size) + offset - start, start);
      this.#regions.push({ place: { ...place, mmapOffset: BigInt(offset - start) }, mapping });
    } finally {
      close(fd);
    }
  }

  /** Bytes by address, which must lie in one region. */
  #area(address: bigint, length: number, space: "guest" | "user"): DataView | undefined {
    const key = space === "guest" ? "guestAddress" : "userAddress";
    for (const { place, mapping } of this.#regions) {
      const at = address - place[key];
      if (at < 0n || at + BigInt(length) > place.size) continue;
      return new DataView(mapping.buffer, Number(at + place.mmapOffset), length);
    }
    return undefined;
  }

  /** Bytes of guest memory, which may span regions. */
  #guest(address: bigint, length: number): Uint8Array[] | undefined {
    const pieces: Uint8Array[] = [];
    for (let done = 0; done < length;) {
      const at = address + BigInt(done);
      const region = this.#regions.find(({ place }) =>
        at >= place.guestAddress && at < place.guestAddress + place.size
      );
      if (region === undefined) return undefined;
      const { place, mapping } = region;
      const left = Number(place.guestAddress + place.size - at);
      const size = Math.min(length - done, left);
      const offset = Number(at - place.guestAddress + place.mmapOffset);
      pieces.push(new Uint8Array(mapping.buffer, offset, size));
      done += size;
    }
    return pieces;
  }

  /** Serves the ring. */
  #work(): void {
    const ring = this.#ring;
    if (ring.kick >= 0 && consume(ring.kick) === "rung") ring.kicked = true;
    if (!ring.started) return;
    if (!ring.enabled) {
      if (this.#has("forgets requests of a disabled ring")) ring.kicked = false;
      return;
    }
    if (ring.poll && this.#has("does not poll")) return;
    if (!ring.kicked && !ring.poll) return;
    const { address, size } = ring;
    const parts = address === undefined ? undefined : this.#parts(address, size);
    if (parts === undefined) return this.#break();
    const { available, used } = parts;
    const flags = this.#has("suppresses kicks for ever") ? 1 : 0;
    if ((this.#features & mask(EVENT_IDX)) === 0n) used.setUint16(0, flags, true);
    const index = available.getUint16(2, true);
    if (((index - ring.next) & 0xffff) > size) return this.#break();
    while (ring.next !== index && ring.started) {
      const head = available.getUint16(4 + 2 * (ring.next % size), true);
      if (!this.#request(head, parts)) return this.#break();
      ring.next = (ring.next + 1) & 0xffff;
    }
    if ((this.#features & mask(EVENT_IDX)) !== 0n) used.setUint16(4 + 8 * size, ring.next, true);
    ring.kicked = available.getUint16(2, true) !== ring.next;
    if (!this.#has("answers GET_VRING_BASE too early")) this.#finish();
    else if (ring.pending.length > 0) setTimeout(() => this.#finish(), 30);
  }

  #parts({ descriptor, available, used }: VringAddress, size: number): Parts | undefined {
    const parts = {
      descriptor: this.#area(descriptor, 16 * size, "user"),
      available: this.#area(available, 6 + 2 * size, "user"),
      used: this.#area(used, 6 + 8 * size, "user"),
    };
    if (Object.values(parts).some((part) => part === undefined)) return undefined;
    return parts as Parts;
  }

  #break(): void {
    const ring = this.#ring;
    ring.address = undefined;
    ring.kicked = false;
    if (ring.error >= 0) signal(ring.error);
  }

  /** Takes a request. Returns whether it makes sense. */
  #request(head: number, parts: Parts): boolean {
    let { descriptor } = parts;
    let limit = this.#ring.size;
    let inTable = false;
    const room: Uint8Array[] = [];
    for (let at = head, count = 0;; count++) {
      if (at >= limit) return false;
      if (count > limit) {
        if (this.#has("dies of a loop")) this.died = true;
        if (this.#has("hangs in a loop")) this.#hung = true;
        return false;
      }
      const view = new DataView(descriptor.buffer, descriptor.byteOffset + 16 * at, 16);
      const address = view.getBigUint64(0, true);
      const length = view.getUint32(8, true);
      const flags = view.getUint16(12, true);
      if ((flags & 4) !== 0 && !this.#has("knows no indirect tables")) {
        if (inTable || (flags & 1) !== 0 || length % 16 !== 0 || length === 0) return false;
        if ((this.#features & mask(INDIRECT_DESC)) === 0n) return false;
        if ((flags & 2) !== 0 && this.#has("minds WRITE on a table")) return false;
        const table = this.#area(address, length, "guest");
        if (table === undefined) return false;
        descriptor = table;
        limit = length / 16;
        inTable = true;
        at = 0;
        count = -1;
        continue;
      }
      const pieces = this.#guest(address, length);
      if (pieces === undefined) return false;
      if ((flags & 2) !== 0) {
        if (room.length > 1 && this.#has("knows no long chains")) return false;
        room.push(...pieces);
      } else if (room.length > 0) return false;
      if ((flags & 1) === 0) break;
      at = view.getUint16(14, true);
    }
    this.#ring.pending.push(() => this.#complete(head, room, parts));
    return true;
  }

  #complete(head: number, room: readonly Uint8Array[], { descriptor, available, used }: Parts): void {
    const ring = this.#ring;
    let written = 0;
    for (const piece of room) {
      for (let at = 0; at < piece.length; at += 65536) crypto.getRandomValues(piece.subarray(at, at + 65536));
      written += piece.length;
    }
    if (this.#has("gives no random bytes")) {
      for (const piece of room) piece.fill(1);
    }
    if (this.#has("writes past its room") && room.length > 0) {
      const last = room[room.length - 1];
      new Uint8Array(last.buffer, last.byteOffset + last.length, 8).fill(1);
    }
    if (this.#has("tells more than it wrote")) written += 100;
    if (this.#has("changes the descriptor table")) descriptor.setUint32(16 * head + 8, 0, true);
    const before = used.getUint16(2, true);
    const times = this.#has("returns heads twice") ? 2 : 1;
    for (let i = 0; i < times; i++) {
      const slot = 4 + 8 * ((before + i) % ring.size);
      used.setUint32(slot, this.#has("returns the wrong head") ? head ^ 1 : head, true);
      used.setUint32(slot + 4, written, true);
    }
    const after = (before + times) & 0xffff;
    used.setUint16(2, after, true);
    if (this.#has("never calls") || ring.call < 0) return;
    const byIndex = (this.#features & mask(EVENT_IDX)) !== 0n;
    const event = available.getUint16(4 + 2 * ring.size, true) + (this.#has("used_event off by one") ? 1 : 0);
    const wanted = byIndex
      ? ((after - event - 1) & 0xffff) < ((after - before) & 0xffff)
      : available.getUint16(0, true) === 0;
    if (wanted) signal(ring.call);
  }

  #finish(): void {
    for (const complete of this.#ring.pending.splice(0)) complete();
  }

  #dropMemory(): void {
    this.#finish();
    for (const { mapping } of this.#regions.splice(0)) mapping.unmap();
  }

  close(): void {
    close(this.#fd);
    this.#fds.close();
    this.#ring.pending.length = 0;
    this.#dropMemory();
    for (const which of ["kick", "call", "error"] as const) this.#setFd(which, -1);
    if (this.#channel >= 0) close(this.#channel);
  }
}

/** The parts of a ring. */
interface Parts {
  descriptor: DataView;
  available: DataView;
  used: DataView;
}

/** Descriptors that nobody will ever close, but {@link closeLeaks}. */
const leaks: number[] = [];

/** Closes what was leaked on purpose. */
export function closeLeaks(): void {
  for (const fd of leaks.splice(0)) close(fd);
}
