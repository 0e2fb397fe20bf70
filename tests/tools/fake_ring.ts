import { consume, signal } from "../../ffi/eventfd.ts";
import { close, setNonblocking } from "../../ffi/fd.ts";
import { mask, ringFeatures } from "../../src/protocol/features.ts";
import type { VringAddress } from "../../src/protocol/payloads.ts";
import type { Fault } from "./fake_faults.ts";
import type { FakeMemory } from "./fake_memory.ts";

const { INDIRECT_DESC, EVENT_IDX } = ringFeatures;

/** The parts of a ring. */
interface Parts {
  descriptor: DataView;
  available: DataView;
  used: DataView;
}

/** The ring of an entropy device. */
export class FakeRing {
  size = 0;
  address: VringAddress | undefined;
  base = 0;
  next = 0;
  enabled = false;
  started = false;
  kicked = false;
  poll = false;
  /** What both sides accepted. */
  features = 0n;
  /** Whether the process is to die. */
  died = false;
  /** Whether it is never to do anything again. */
  hung = false;
  readonly #pending: (() => void)[] = [];
  readonly #fds = { kick: -1, call: -1, error: -1 };
  readonly #memory: FakeMemory;
  readonly #fault: Fault | undefined;

  constructor(memory: FakeMemory, fault: Fault | undefined) {
    this.#memory = memory;
    this.#fault = fault;
  }

  #has(fault: Fault): boolean {
    return this.#fault === fault;
  }

  /** Serves the this. */
  work(): void {
    if (this.#fds.kick >= 0 && consume(this.#fds.kick) === "rung") this.kicked = true;
    if (!this.started) return;
    if (!this.enabled) {
      if (this.#has("forgets requests of a disabled ring")) this.kicked = false;
      return;
    }
    if (this.poll && this.#has("does not poll")) return;
    if (!this.kicked && !this.poll) return;
    const { address, size } = this;
    const parts = address === undefined ? undefined : this.#parts(address, size);
    if (parts === undefined) return this.#break();
    const { available, used } = parts;
    const flags = this.#has("suppresses kicks for ever") ? 1 : 0;
    if ((this.features & mask(EVENT_IDX)) === 0n) used.setUint16(0, flags, true);
    const index = available.getUint16(2, true);
    if (((index - this.next) & 0xffff) > size) return this.#break();
    while (this.next !== index && this.started) {
      const head = available.getUint16(4 + 2 * (this.next % size), true);
      if (!this.#request(head, parts)) return this.#break();
      this.next = (this.next + 1) & 0xffff;
    }
    if ((this.features & mask(EVENT_IDX)) !== 0n) used.setUint16(4 + 8 * size, this.next, true);
    this.kicked = available.getUint16(2, true) !== this.next;
    if (!this.#has("answers GET_VRING_BASE too early")) this.finish();
    else if (this.#pending.length > 0) setTimeout(() => this.finish(), 30);
  }

  #parts({ descriptor, available, used }: VringAddress, size: number): Parts | undefined {
    const parts = {
      descriptor: this.#memory.area(descriptor, 16 * size, "user"),
      available: this.#memory.area(available, 6 + 2 * size, "user"),
      used: this.#memory.area(used, 6 + 8 * size, "user"),
    };
    if (Object.values(parts).some((part) => part === undefined)) return undefined;
    return parts as Parts;
  }

  #break(): void {
    this.address = undefined;
    this.kicked = false;
    if (this.#fds.error >= 0) signal(this.#fds.error);
  }

  /** Takes a request. Returns whether it makes sense. */
  #request(head: number, parts: Parts): boolean {
    let { descriptor } = parts;
    let limit = this.size;
    let inTable = false;
    const room: Uint8Array[] = [];
    for (let at = head, count = 0;; count++) {
      if (at >= limit) return false;
      if (count > limit) {
        if (this.#has("dies of a loop")) this.died = true;
        if (this.#has("hangs in a loop")) this.hung = true;
        return false;
      }
      const view = new DataView(descriptor.buffer, descriptor.byteOffset + 16 * at, 16);
      const address = view.getBigUint64(0, true);
      const length = view.getUint32(8, true);
      const flags = view.getUint16(12, true);
      if ((flags & 4) !== 0 && !this.#has("knows no indirect tables")) {
        if (inTable || (flags & 1) !== 0 || length % 16 !== 0 || length === 0) return false;
        if ((this.features & mask(INDIRECT_DESC)) === 0n) return false;
        if ((flags & 2) !== 0 && this.#has("minds WRITE on a table")) return false;
        const table = this.#memory.area(address, length, "guest");
        if (table === undefined) return false;
        descriptor = table;
        limit = length / 16;
        inTable = true;
        at = 0;
        count = -1;
        continue;
      }
      const pieces = this.#memory.guest(address, length);
      if (pieces === undefined) return false;
      if ((flags & 2) !== 0) {
        if (room.length > 1 && this.#has("knows no long chains")) return false;
        room.push(...pieces);
      } else if (room.length > 0) return false;
      if ((flags & 1) === 0) break;
      at = view.getUint16(14, true);
    }
    this.#pending.push(() => this.#complete(head, room, parts));
    return true;
  }

  #complete(head: number, room: readonly Uint8Array[], { descriptor, available, used }: Parts): void {
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
      const slot = 4 + 8 * ((before + i) % this.size);
      used.setUint32(slot, this.#has("returns the wrong head") ? head ^ 1 : head, true);
      used.setUint32(slot + 4, written, true);
    }
    const after = (before + times) & 0xffff;
    used.setUint16(2, after, true);
    if (this.#has("never calls") || this.#fds.call < 0) return;
    const byIndex = (this.features & mask(EVENT_IDX)) !== 0n;
    const event = available.getUint16(4 + 2 * this.size, true) + (this.#has("used_event off by one") ? 1 : 0);
    const wanted = byIndex
      ? ((after - event - 1) & 0xffff) < ((after - before) & 0xffff)
      : available.getUint16(0, true) === 0;
    if (wanted) signal(this.#fds.call);
  }

  /** Returns all requests. */
  finish(): void {
    for (const complete of this.#pending.splice(0)) complete();
  }

  /** Takes a descriptor in place of the one that was there. */
  setFd(which: "kick" | "call" | "error", fd: number): void {
    if (this.#fds[which] >= 0) close(this.#fds[which]);
    this.#fds[which] = fd;
    if (fd >= 0) setNonblocking(fd);
  }

  /** Forgets what is under way. */
  close(): void {
    this.#pending.length = 0;
    for (const which of ["kick", "call", "error"] as const) this.setFd(which, -1);
  }
}
