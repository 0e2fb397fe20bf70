import { consume, eventfd, signal } from "../../ffi/eventfd.ts";
import { close } from "../../ffi/fd.ts";
import type { FrontEnd, Piece, SharedMemory } from "../../src/frontend/mod.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { aWhile, eventually } from "./scene.ts";

/** A descriptor as the driver writes it. */
export interface Descriptor {
  readonly address: number | bigint;
  readonly length: number;
  readonly flags?: number;
  readonly next?: number;
}

export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;

/** How a {@link Ring} is made. */
export interface RingOptions {
  /** Number in the device; 0 by default. */
  readonly index?: number;
  /** Entries; 8 by default. */
  readonly size?: number;
  /** Where both indices start; 0 by default. */
  readonly start?: number;
}

/**
 * A split ring that is written by hand, right or wrong, without EVENT_IDX. Written without the toolkit's ring, so that a
 * mistake in that is seen.
 */
export class Ring {
  readonly index: number;
  readonly size: number;
  readonly descriptor: Piece;
  readonly available: Piece;
  readonly used: Piece;
  /** Rings at the device. */
  readonly kick: number;
  /** Rings here. */
  readonly call: number;
  /** Rings here when the ring is broken. */
  readonly error: number;
  readonly #frontEnd: FrontEnd;
  readonly #start: number;
  #offered: number;

  /** Lays a ring out; the device does not know of it yet. */
  constructor(scope: Scope, frontEnd: FrontEnd, memory: SharedMemory, options: RingOptions = {}) {
    const { index = 0, size = 8, start = 0 } = options;
    this.#frontEnd = frontEnd;
    this.index = index;
    this.size = size;
    this.descriptor = memory.allocate(16 * size, 16);
    this.available = memory.allocate(4 + 2 * size + 2, 2);
    this.used = memory.allocate(4 + 8 * size + 2, 4);
    this.#start = this.#offered = start;
    view(this.available).setUint16(2, start, true);
    view(this.used).setUint16(2, start, true);
    const fds = [this.kick, this.call, this.error] = [eventfd(), eventfd(), eventfd()];
    onEnd(scope, () => fds.forEach(close));
  }

  /** SET_VRING_NUM, _BASE and _ADDR. */
  async place(base: number = this.#start): Promise<void> {
    const { index } = this;
    await this.#frontEnd.request("SET_VRING_NUM", { index, num: this.size });
    await this.#frontEnd.request("SET_VRING_BASE", { index, num: base });
    await this.#frontEnd.request("SET_VRING_ADDR", {
      index,
      flags: 0,
      descriptor: this.descriptor.userAddress,
      used: this.used.userAddress,
      available: this.available.userAddress,
      log: 0n,
    });
  }

  /** SET_VRING_KICK; with `null` the ring is polled. */
  async setKick(fd: number | null = this.kick): Promise<void> {
    await this.#set("SET_VRING_KICK", fd);
  }

  /** SET_VRING_CALL; with `null` nobody wants to be told. */
  async setCall(fd: number | null = this.call): Promise<void> {
    await this.#set("SET_VRING_CALL", fd);
  }

  /** SET_VRING_ERR. */
  async setError(fd: number | null = this.error): Promise<void> {
    await this.#set("SET_VRING_ERR", fd);
  }

  async #set(name: "SET_VRING_KICK" | "SET_VRING_CALL" | "SET_VRING_ERR", fd: number | null): Promise<void> {
    await this.#frontEnd.request(
      name,
      { index: this.index, noDescriptor: fd === null },
      fd === null ? [] : [fd],
    );
  }

  /** SET_VRING_ENABLE. */
  async enable(on = true): Promise<void> {
    await this.#frontEnd.request("SET_VRING_ENABLE", { index: this.index, num: on ? 1 : 0 });
  }

  /** GET_VRING_BASE. */
  async stop(): Promise<number> {
    const { value } = await this.#frontEnd.request("GET_VRING_BASE", { index: this.index, num: 0 });
    return value.num;
  }

  /** Everything that makes it run. */
  async start(): Promise<void> {
    await this.place();
    await this.setError();
    await this.setCall();
    await this.setKick();
    await this.enable();
  }

  /** Empties a ring that is stopped. */
  reset(): void {
    this.#offered = this.#start;
    view(this.available).setUint16(2, this.#start, true);
    view(this.used).setUint16(2, this.#start, true);
  }

  /** Writes a descriptor into the ring's table, or into another. */
  describe(
    at: number,
    { address, length, flags = 0, next = 0 }: Descriptor,
    table: Piece = this.descriptor,
  ): void {
    const words = view(table);
    words.setBigUint64(16 * at, BigInt(address), true);
    words.setUint32(16 * at + 8, length, true);
    words.setUint16(16 * at + 12, flags, true);
    words.setUint16(16 * at + 14, next, true);
  }

  /** Makes heads available, without ringing. */
  offer(...heads: number[]): void {
    const words = view(this.available);
    for (const head of heads) {
      words.setUint16(4 + 2 * (this.#offered % this.size), head, true);
      this.#offered = (this.#offered + 1) & 0xffff;
    }
    if (heads.length > 0) this.offeredIndex = this.#offered;
  }

  /** `avail.idx`. */
  set offeredIndex(index: number) {
    view(this.available).setUint16(2, index, true);
  }

  /** Makes heads available and rings. */
  send(...heads: number[]): void {
    this.offer(...heads);
    signal(this.kick);
  }

  /** `used.idx`. */
  get usedIndex(): number {
    return view(this.used).getUint16(2, true);
  }

  /** The element at a position of the used ring. */
  returned(position: number): { head: number; written: number } {
    const at = 4 + 8 * (position % this.size);
    return { head: view(this.used).getUint32(at, true), written: view(this.used).getUint32(at + 4, true) };
  }

  /** Waits for `used.idx`. */
  async until(index: number): Promise<void> {
    await eventually(`used index ${index} of ring ${this.index}`, () => this.usedIndex === index);
  }

  /** Waits until the device says that the ring is broken. */
  async broken(): Promise<void> {
    await eventually(`ring ${this.index} is broken`, () => consume(this.error) === "rung");
  }

  /** A copy of everything that the device may write of the ring. */
  snapshot(): Uint8Array {
    return this.used.bytes.slice();
  }
}

/** The fields of a piece of memory. */
export function view({ bytes }: Piece): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Polls rings for a moment. A thread that has once had to sleep keeps what it needs for that: afterwards its descriptors can
 * be counted.
 */
export async function pollOnce(...rings: readonly Ring[]): Promise<void> {
  for (const ring of rings) {
    await ring.place();
    await ring.enable();
    await ring.setKick(null);
    await aWhile();
    await ring.stop();
    await ring.place();
  }
}
