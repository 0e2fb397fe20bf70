/**
 * A driver that may do anything, and that looks at everything which is done to its memory.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { setTimeout as sleep } from "node:timers/promises";
import { consume, signal } from "../../../ffi/eventfd.ts";
import { FrontEnd, type Piece, SharedMemory } from "../../../src/frontend/mod.ts";
import { INDIRECT, NEXT, Ring, view, WRITE } from "../../session/rings.ts";
import { NOT_BY_HAND } from "../../session/stage.ts";
import { onEnd, type Scope } from "../../support/cleanup.ts";
import type { Request } from "./form.ts";

/** What a device must not leave where it has not written. */
const UNTOUCHED = 0xee;
/** Bytes between the buffers. */
const GAP = 32;
/** Entries of a ring. */
const SIZE = 64;
/** The longest that a request may take, on a machine that has other things to do. */
const PATIENCE = 30_000;
const MEMORY = 4 << 20;

/** A buffer in guest memory. */
interface Part {
  readonly offset: number;
  readonly length: number;
}

/** A request that the device has. */
interface Sent {
  readonly request: Request;
  readonly writable: readonly Part[];
  readonly room: number;
}

/** A request that has come back. */
export interface Answer {
  /** What the device says that it has written. */
  readonly written: number;
  /** All that it could write to. */
  readonly bytes: Uint8Array;
}

/** What a device may write beyond what it says: the offsets of a request with so much room. */
export type Extra = (
  request: Request,
  room: number,
  written: number,
) => readonly (readonly [from: number, to: number])[];

/** How a driver drives. */
export interface DriverOptions {
  /** Rings. */
  readonly queues: number;
  /** Rings whose requests the device keeps as long as it likes. */
  readonly holds: ReadonlySet<number>;
  /** {@link Extra}. */
  readonly extra?: Extra;
  /** Features of the device type that are left out. */
  readonly withoutFeatures?: bigint;
}

/** One of the driver's rings. */
class Lane {
  readonly ring: Ring;
  readonly sent = new Map<number, Sent>();
  readonly answers = new WeakMap<Request, Answer>();
  /** Next position of the used ring. */
  seen = 0;
  /** Next descriptor to use: they are used in turn, and a request only when all that it needs are free. */
  next = 0;
  used = 0;
  broken = false;

  constructor(ring: Ring) {
    this.ring = ring;
  }
}

/** A driver. */
export class GuestDriver {
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
  readonly #scope: Scope;
  readonly #options: DriverOptions;
  readonly #lanes: Lane[] = [];
  /** What memory should hold. */
  readonly #shadow: Uint8Array;
  #bytes: Uint8Array<ArrayBuffer>;
  #room: Part;
  #at = 0;
  /** Requests that were answered, and rings that were broken. */
  answered = 0;
  broken = 0;

  private constructor(scope: Scope, frontEnd: FrontEnd, memory: SharedMemory, options: DriverOptions) {
    this.#scope = scope;
    this.frontEnd = frontEnd;
    this.memory = memory;
    this.#options = options;
    this.#bytes = memory.piece(0, MEMORY).bytes;
    this.#shadow = new Uint8Array(MEMORY);
    this.#room = { offset: 0, length: 0 };
  }

  /** Connects, and starts all rings. */
  static async connect(scope: Scope, path: string, options: DriverOptions): Promise<GuestDriver> {
    const frontEnd = await FrontEnd.connect(path, {
      deviceFeatures: 0xff_ffffn,
      withoutFeatures: NOT_BY_HAND | (options.withoutFeatures ?? 0n),
    });
    onEnd(scope, () => frontEnd.close());
    const memory = new SharedMemory(MEMORY);
    onEnd(scope, () => memory.close());
    const driver = new GuestDriver(scope, frontEnd, memory, options);
    await frontEnd.shareMemory(memory);
    for (let index = 0; index < options.queues; index++) {
      const ring = new Ring(scope, frontEnd, memory, { index, size: SIZE });
      driver.#lanes.push(new Lane(ring));
      await ring.start();
    }
    await frontEnd.driverOk();
    const { offset } = driver.#part(memory.allocate(1));
    driver.#room = { offset: offset + GAP, length: MEMORY - offset - GAP };
    driver.#bytes.fill(UNTOUCHED, driver.#room.offset);
    driver.#shadow.set(driver.#bytes);
    return driver;
  }

  #part({ guestAddress, bytes }: Piece): Part {
    return { offset: guestAddress - this.memory.guestAddress, length: bytes.length };
  }

  /** Room for a buffer. Starts anew when nothing is under way and memory is used up; undefined while something is. */
  #allocate(length: number): Part | undefined {
    const size = length + GAP;
    if (this.#at + size > this.#room.length) {
      if (this.#lanes.some(({ sent }) => sent.size > 0)) return undefined;
      this.checkMemory();
      this.#at = 0;
      this.#bytes.fill(UNTOUCHED, this.#room.offset);
      this.#shadow.set(this.#bytes);
      this.#noted = this.#room.offset;
      if (size > this.#room.length) return undefined;
    }
    const part = { offset: this.#room.offset + this.#at, length };
    this.#at += size;
    return part;
  }

  /** Sends a request, unless there is no room for it. Returns whether it was sent. */
  async send(request: Request): Promise<boolean> {
    const lane = this.#lanes[request.queue];
    if (lane === undefined) return false;
    if (lane.broken) await this.#restart(lane);
    const { ring } = lane;
    const bytes = Uint8Array.fromHex(request.bytes);
    const out = this.#allocate(bytes.length);
    const room = this.#allocate(request.room);
    if (out === undefined || room === undefined) return false;
    this.#bytes.set(bytes, out.offset);
    const readable = cut(out, 0, request.cuts);
    const writable = cut(room, bytes.length, request.cuts);
    const pieces = [
      ...readable.map((part) => ({ part, flags: 0 })),
      ...writable.map((part) => ({ part, flags: WRITE })),
    ];
    // A request of nothing is a descriptor of nothing.
    if (pieces.length === 0) pieces.push({ part: { offset: out.offset, length: 0 }, flags: 0 });
    const indirect = request.layout === "indirect" || request.layout.includes("table");
    const needed = indirect ? 1 : pieces.length;
    if (lane.used + needed > SIZE) return false;
    const table = indirect ? this.#allocate(16 * pieces.length) : undefined;
    if (indirect && table === undefined) return false;
    const at = (n: number): number => (lane.next + n) % SIZE;
    const words = table === undefined ? undefined : this.memory.piece(table.offset, table.length);
    for (const [i, { part, flags }] of pieces.entries()) {
      const last = i === pieces.length - 1;
      const descriptor = {
        address: this.memory.guestAddress + part.offset,
        length: part.length,
        flags: flags | (last ? 0 : NEXT),
        next: last ? 0 : words === undefined ? at(i + 1) : i + 1,
      };
      if (words === undefined) ring.describe(at(i), descriptor);
      else ring.describe(i, descriptor, words);
    }
    if (table !== undefined) {
      ring.describe(at(0), {
        address: this.memory.guestAddress + table.offset,
        length: table.length,
        flags: INDIRECT,
      });
    }
    const offered = this.#spoil(request, lane, words, pieces.length);
    const never = request.layout === "index too far" || request.layout === "head outside";
    if (!never) lane.sent.set(at(0), { request, writable, room: request.room });
    lane.next = at(needed);
    lane.used += needed;
    this.#note();
    if (request.layout === "index too far") ring.offeredIndex = 0x8000 + lane.seen & 0xffff;
    else ring.offer(offered);
    this.#note();
    signal(ring.kick);
    const holds = this.#options.holds.has(request.queue);
    // A ring in which the driver has lost its way does not go on, whether the device has noticed it or not.
    if (never && holds) await this.#restart(lane);
    else if (never) await this.#settled(lane, () => lane.broken);
    else if (request.waits && !holds) await this.#settled(lane);
    else this.#collect(lane);
    return true;
  }

  /** Makes the descriptors wrong in the way that the request says. Returns the head to offer. */
  #spoil({ layout }: Request, { ring, next: head }: Lane, table: Piece | undefined, count: number): number {
    const where = table ?? ring.descriptor;
    const first = table === undefined ? head : 0;
    const last = (first + count - 1) % (table === undefined ? SIZE : Infinity);
    const words = view(where);
    const flags = (at: number, set: number): void =>
      words.setUint16(16 * at + 12, words.getUint16(16 * at + 12, true) | set, true);
    switch (layout) {
      case "readable after writable":
        flags(first, WRITE | NEXT);
        words.setUint16(16 * last + 12, 0, true);
        words.setUint16(16 * first + 14, (first + 1) % SIZE, true);
        break;
      case "loop":
        flags(last, NEXT);
        words.setUint16(16 * last + 14, first, true);
        break;
      case "next outside":
        flags(last, NEXT);
        words.setUint16(16 * last + 14, 0xffff, true);
        break;
      case "head outside":
        return 0xffff;
      case "address outside":
        words.setBigUint64(16 * last, 0x7fff_ffff_ffff_f000n, true);
        words.setUint32(16 * last + 8, 4096, true);
        break;
      case "address at the end":
        words.setBigUint64(16 * last, BigInt(this.memory.guestAddress + MEMORY - 4), true);
        words.setUint32(16 * last + 8, 8, true);
        break;
      case "length absurd":
        words.setUint32(16 * last + 8, 0xffff_ffff, true);
        break;
      case "nested table":
        flags(0, INDIRECT);
        break;
      case "table cut off":
        view(ring.descriptor).setUint32(16 * head + 8, 16 * count - 3, true);
        break;
      case "table with next":
        view(ring.descriptor).setUint16(16 * head + 12, INDIRECT | NEXT, true);
    }
    return head;
  }

  /** What the driver has written is what should be there. */
  #note(): void {
    // The rings come first in memory, then the buffers.
    this.#shadow.set(this.#bytes.subarray(0, this.#room.offset), 0);
    this.#shadow.set(this.#bytes.subarray(this.#noted, this.#room.offset + this.#at), this.#noted);
    this.#noted = this.#room.offset + this.#at;
  }
  #noted = 0;

  /** Whatever is in these buffers now may be there. */
  #allow(parts: readonly Part[]): void {
    for (const { offset, length } of parts) {
      this.#shadow.set(this.#bytes.subarray(offset, offset + length), offset);
    }
  }

  /** Takes what has come back. */
  #collect(lane: Lane): void {
    const { ring } = lane;
    for (; lane.seen !== ring.usedIndex; lane.seen = (lane.seen + 1) & 0xffff) {
      const { head, written } = ring.returned(lane.seen);
      const sent = lane.sent.get(head);
      assert.ok(sent !== undefined, `ring ${ring.index} returns head ${head}, which it does not have`);
      lane.sent.delete(head);
      this.#check(lane, sent, written);
    }
    if (lane.sent.size === 0) lane.used = 0;
    if (consume(ring.error) === "rung") {
      lane.broken = true;
      this.broken++;
    }
  }

  #check(lane: Lane, { request, writable, room }: Sent, written: number): void {
    const what = `${request.form} on ring ${request.queue} (${request.layout})`;
    // A request whose descriptors are wrong has another size than it seems.
    if (request.layout !== "right" && request.layout !== "indirect") {
      return this.#allow(writable);
    }
    assert.ok(written <= room, `${what}: ${written} bytes written, room for ${room}`);
    const bytes = new Uint8Array(room);
    let at = 0;
    for (const { offset, length } of writable) {
      bytes.set(this.#bytes.subarray(offset, offset + length), at);
      at += length;
    }
    this.#allow(writable);
    const extra = this.#options.extra?.(request, room, written) ?? [];
    for (let i = written; i < room; i++) {
      if (bytes[i] === UNTOUCHED || extra.some(([from, to]) => i >= from && i < to)) continue;
      assert.fail(`${what}: byte ${i} of ${room} is ${bytes[i]}, and ${written} were written`);
    }
    this.answered++;
    lane.answers.set(request, { written, bytes });
  }

  /** The answer to a request that has come back. */
  answerTo(request: Request): Answer | undefined {
    return this.#lanes[request.queue].answers.get(request);
  }

  /** Waits until all that a ring has is back, or the ring is broken. */
  async #settled(lane: Lane, isSettled = () => lane.sent.size === 0): Promise<void> {
    const deadline = performance.now() + PATIENCE;
    for (let turns = 0;; turns++) {
      this.#collect(lane);
      if (isSettled() || lane.broken) return;
      if (turns < 50) await new Promise<void>((resolve) => setImmediate(resolve));
      else await sleep(1);
      if (performance.now() < deadline) continue;
      const [{ request }] = lane.sent.values();
      assert.fail(
        `no answer to ${request.form} on ring ${request.queue} (${request.layout}): ${request.bytes}`,
      );
    }
  }

  /** Stops a ring and starts it anew, empty. What the device still had it must not touch from then on. */
  async #restart(lane: Lane): Promise<void> {
    await this.#stop(lane);
    const { ring } = lane;
    ring.reset();
    lane.seen = lane.next = lane.used = 0;
    lane.broken = false;
    this.#note();
    await ring.start();
  }

  async #stop(lane: Lane): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`ring ${lane.ring.index} does not stop`)), PATIENCE);
    });
    await Promise.race([lane.ring.stop(), limit]).finally(() => clearTimeout(timer));
    this.#collect(lane);
    // What it has not returned it may have written to.
    for (const { writable } of lane.sent.values()) this.#allow(writable);
    lane.sent.clear();
  }

  /** Stops a ring and starts it anew. */
  async restart(index: number): Promise<void> {
    await this.#restart(this.#lanes[index % this.#lanes.length]);
  }

  /** RESET_DEVICE, and everything from the beginning. */
  async reset(): Promise<void> {
    for (const lane of this.#lanes) await this.#stop(lane);
    await this.frontEnd.resetDevice();
    for (const lane of this.#lanes) await this.#restart(lane);
    await this.frontEnd.driverOk();
  }

  /** Waits for what comes back by itself, stops everything, and looks at all memory. */
  async finish(): Promise<void> {
    for (const lane of this.#lanes) if (!this.#options.holds.has(lane.ring.index)) await this.#settled(lane);
    for (const lane of this.#lanes) await this.#stop(lane);
    this.checkMemory();
  }

  /** Nothing is written where nothing may be. */
  checkMemory(): void {
    for (const { ring, sent } of this.#lanes) {
      this.#allow([this.#part(ring.used)]);
      for (const { writable } of sent.values()) this.#allow(writable);
    }
    if (Buffer.compare(this.#bytes, this.#shadow) === 0) return;
    const at = this.#bytes.findIndex((byte, i) => byte !== this.#shadow[i]);
    assert.fail(`byte ${at} of guest memory is ${this.#bytes[at]}, expected ${this.#shadow[at]}`);
  }

  /** Whether some bytes are anywhere in the guest's memory. */
  holds(secret: Uint8Array): boolean {
    return Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset, MEMORY).indexOf(secret) >= 0;
  }
}
/** Cuts a buffer at places that count from another start. */
function cut(part: Part, start: number, cuts: readonly number[]): Part[] {
  if (part.length === 0) return [];
  const inside = cuts.map((at) => at - start).filter((at) => at >= 0 && at <= part.length);
  const ends = [...inside, part.length];
  let at = 0;
  return ends.map((end) => {
    const piece = { offset: part.offset + at, length: end - at };
    at = end;
    return piece;
  });
}
