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
import { has, mask, ringFeatures } from "../../../src/protocol/mod.ts";
import { Ring, WRITE } from "../../session/rings.ts";
import { NOT_BY_HAND } from "../../session/stage.ts";
import { onEnd, type Scope } from "../../support/cleanup.ts";
import type { Request } from "./form.ts";
import { Lane, type Part, type Sent } from "./lane.ts";

/** What a device must not leave where it has not written. */
const UNTOUCHED = 0xee;
/** Bytes between the buffers. */
const GAP = 32;
/** Entries of a ring. */
const SIZE = 64;
/** The longest that a request may take, on a machine that has other things to do. */
const PATIENCE = 30_000;
const MEMORY = 4 << 20;

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
  /** Whether the rings are packed. No by default. */
  readonly packed?: boolean;
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
    const { packed = false } = options;
    const frontEnd = await FrontEnd.connect(path, {
      deviceFeatures: 0xff_ffffn,
      withoutFeatures: packed ? NOT_BY_HAND & ~mask(ringFeatures.RING_PACKED) : NOT_BY_HAND,
    });
    onEnd(scope, () => frontEnd.close());
    assert.equal(has(frontEnd.features, ringFeatures.RING_PACKED), packed, "packed rings");
    const memory = new SharedMemory(MEMORY);
    onEnd(scope, () => memory.close());
    const driver = new GuestDriver(scope, frontEnd, memory, options);
    await frontEnd.shareMemory(memory);
    for (let index = 0; index < options.queues; index++) {
      const ring = new Ring(scope, frontEnd, memory, { index, size: SIZE, start: Lane.base(packed) });
      const lane = Lane.of(ring, memory.guestAddress + MEMORY, packed);
      driver.#lanes.push(lane);
      lane.reset();
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
    const chain = [
      ...readable.map((part) => ({ part, flags: 0 })),
      ...writable.map((part) => ({ part, flags: WRITE })),
    ].map(({ part, flags }) => ({
      address: this.memory.guestAddress + part.offset,
      length: part.length,
      flags,
    }));
    // A request of nothing is a descriptor of nothing.
    if (chain.length === 0) {
      chain.push({ address: this.memory.guestAddress + out.offset, length: 0, flags: 0 });
    }
    const indirect = request.layout === "indirect" || request.layout.includes("table");
    const needed = indirect ? 1 : chain.length;
    if (needed > lane.free) return false;
    const place = indirect ? this.#allocate(16 * chain.length) : undefined;
    if (indirect && place === undefined) return false;
    const piece = place && this.memory.piece(place.offset, place.length);
    const id = lane.write(chain, piece && { piece, address: piece.guestAddress }, request.layout);
    const never = id < 0;
    if (!never) lane.sent.set(id, { request, writable, room: request.room, descriptors: needed });
    this.#note();
    lane.show();
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
    for (let back = lane.take(); back !== undefined; back = lane.take()) {
      const { id, written } = back;
      const sent = lane.sent.get(id);
      assert.ok(sent !== undefined, `ring ${ring.index} returns head ${id}, which it does not have`);
      lane.sent.delete(id);
      this.#check(lane, sent, written);
    }
    if (lane.sent.size === 0) lane.allBack();
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
    lane.reset();
    this.#note();
    await lane.ring.start();
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
    for (const { devicesOwn, sent } of this.#lanes) {
      this.#allow(devicesOwn.map((piece) => this.#part(piece)));
      for (const { writable } of sent.values()) this.#allow(writable);
    }
    if (Buffer.compare(this.#bytes, this.#shadow) === 0) return;
    const at = this.#bytes.findIndex((byte, i) => byte !== this.#shadow[i]);
    assert.fail(`byte ${at} of guest memory is ${this.#bytes[at]}, expected ${this.#shadow[at]}`);
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
