/**
 * A split ring with every field in reach (virtio 1.4, section 2.7): what a correct driver never writes can be written.
 *
 * @module
 */

import { consume, eventfd, signal } from "../../../ffi/eventfd.ts";
import { close } from "../../../ffi/fd.ts";
import type { Piece, SharedMemory } from "../../frontend/shared_memory.ts";
import { DESCRIPTOR_SIZE, DescriptorFlag, splitRingSizes } from "../../virtqueue/split_layout.ts";
import { happens } from "./wait.ts";

const { NEXT, WRITE, INDIRECT } = DescriptorFlag;

/** One descriptor. */
export interface Descriptor {
  /** Guest physical address. */
  readonly address: number | bigint;
  /** Bytes. */
  readonly length: number;
  /** Flags. */
  readonly flags?: number;
  /** Next descriptor. */
  readonly next?: number;
}

/** A part of a request: bytes that the device reads, or room that it writes to. */
export interface Part {
  /** Guest physical address. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  /** Whether the device writes it. */
  readonly write: boolean;
}

/** How a request lies in the ring: descriptors of its own, a table, or some before a table. */
export type Shape = "direct" | "table" | "mixed";

/** Writes a descriptor. */
export function writeDescriptor(target: Uint8Array, index: number, descriptor: Descriptor): void {
  const { address, length, flags = 0, next = 0 } = descriptor;
  const view = new DataView(target.buffer, target.byteOffset + index * DESCRIPTOR_SIZE, DESCRIPTOR_SIZE);
  view.setBigUint64(0, BigInt.asUintN(64, BigInt(address)), true);
  view.setUint32(8, length, true);
  view.setUint16(12, flags, true);
  view.setUint16(14, next, true);
}

/** Descriptors that chain parts, the first of them being number `first`. */
export function chain(parts: readonly Part[], first = 0): Descriptor[] {
  return parts.map(({ address, length, write }, i) => {
    const last = i === parts.length - 1;
    return {
      address,
      length,
      flags: (write ? WRITE : 0) | (last ? 0 : NEXT),
      next: last ? 0 : first + i + 1,
    };
  });
}

/** A ring with its three doorbells. */
export class CheckRing {
  /** Number of the ring in the device. */
  readonly index: number;
  /** Entries. */
  readonly size: number;
  /** Where the descriptor table is. */
  readonly descriptor: Piece;
  /** Where the available ring is. */
  readonly available: Piece;
  /** Where the used ring is. */
  readonly used: Piece;
  /** Rings at the device. */
  readonly kickFd: number = eventfd();
  /** Rung by the device. */
  readonly callFd: number = eventfd();
  /** Rung by the device that finds the ring broken. */
  readonly errorFd: number = eventfd();
  /** Completions counted by {@link collect}. */
  seen: number;
  readonly #memory: SharedMemory;
  readonly #avail: Uint16Array;
  readonly #usedWords: Uint16Array;
  readonly #elements: Uint32Array;
  #next = 0;

  /**
   * Lays a ring out.
   *
   * @param start position at which it starts
   */
  constructor(index: number, memory: SharedMemory, size: number, start = 0) {
    const bytes = splitRingSizes(size, true);
    this.index = index;
    this.size = size;
    this.#memory = memory;
    this.descriptor = memory.allocate(bytes.descriptor, 16);
    this.available = memory.allocate(bytes.available, 4);
    this.used = memory.allocate(bytes.used, 4);
    const { buffer, byteOffset } = this.available.bytes;
    this.#avail = new Uint16Array(buffer, byteOffset, bytes.available / 2);
    this.#usedWords = new Uint16Array(buffer, this.used.bytes.byteOffset, bytes.used / 2);
    this.#elements = new Uint32Array(buffer, this.used.bytes.byteOffset + 4, 2 * size);
    this.#avail[1] = start;
    this.#usedWords[1] = start;
    this.seen = start;
  }

  /** Sets a descriptor of the table. */
  setDescriptor(index: number, descriptor: Descriptor): void {
    writeDescriptor(this.descriptor.bytes, index, descriptor);
  }

  /**
   * Puts a request into the table, from where the last one ended; older ones must be done with.
   *
   * @returns its head
   */
  place(parts: readonly Part[], shape: Shape = "direct"): number {
    const direct = shape === "table" ? [] : shape === "mixed" ? parts.slice(0, 1) : parts;
    const slots = direct.length + (shape === "direct" ? 0 : 1);
    if (this.#next + slots > this.size) this.#next = 0;
    const head = this.#next;
    this.#next += slots;
    const descriptors = chain(direct, head);
    if (shape !== "direct") {
      const rest = parts.slice(direct.length);
      const table = this.table(chain(rest));
      const before = descriptors.pop();
      if (before !== undefined) {
        descriptors.push({ ...before, flags: (before.flags ?? 0) | NEXT, next: head + direct.length });
      }
      descriptors.push({ address: table.guestAddress, length: table.bytes.length, flags: INDIRECT });
    }
    descriptors.forEach((each, i) => this.setDescriptor(head + i, each));
    return head;
  }

  /** A table of descriptors in memory of its own. */
  table(descriptors: readonly Descriptor[]): Piece {
    const piece = this.#memory.allocate(Math.max(1, descriptors.length) * DESCRIPTOR_SIZE, 16);
    descriptors.forEach((each, i) => writeDescriptor(piece.bytes, i, each));
    return piece;
  }

  /** Makes heads available, all at once. */
  offer(...heads: number[]): void {
    const at = this.#avail[1];
    heads.forEach((head, i) => this.#avail[2 + ((at + i) % this.size)] = head);
    Atomics.store(this.#avail, 1, (at + heads.length) & 0xffff);
  }

  /** Where the next request will be made available; may be set to what no driver would. */
  get availableIndex(): number {
    return this.#avail[1];
  }
  set availableIndex(value: number) {
    Atomics.store(this.#avail, 1, value);
  }

  /** The flags by which the driver asks for no interrupts. */
  set availableFlags(value: number) {
    Atomics.store(this.#avail, 0, value);
  }

  /** The completion after which the driver wants an interrupt (EVENT_IDX). */
  set usedEvent(value: number) {
    Atomics.store(this.#avail, 2 + this.size, value & 0xffff);
  }

  /** How far the device has come. */
  get usedIndex(): number {
    return Atomics.load(this.#usedWords, 1);
  }

  /** The flags by which the device asks for no kicks. */
  get usedFlags(): number {
    return Atomics.load(this.#usedWords, 0);
  }

  /** The request after which the device wants a kick (EVENT_IDX). */
  get availableEvent(): number {
    return Atomics.load(this.#usedWords, 2 + 4 * this.size);
  }

  /** What the device has returned at a position. */
  element(position: number): { head: number; written: number } {
    const slot = (position % this.size) * 2;
    return { head: this.#elements[slot], written: this.#elements[slot + 1] };
  }

  /** Rings at the device. */
  kick(): void {
    signal(this.kickFd);
  }

  /** Whether the device has rung since the last question. */
  called(): boolean {
    return consume(this.callFd) === "rung";
  }

  /** Whether the device has found the ring broken since the last question. */
  errored(): boolean {
    return consume(this.errorFd) === "rung";
  }

  /** Requests returned and not yet collected. */
  get returned(): number {
    return (this.usedIndex - this.seen) & 0xffff;
  }

  /** Waits until so many more requests have been returned. */
  async returns(count: number, ms: number): Promise<boolean> {
    return await happens(() => this.returned >= count, ms);
  }

  /** Takes what has been returned. */
  collect(): { head: number; written: number }[] {
    const found = [];
    for (; this.seen !== this.usedIndex; this.seen = (this.seen + 1) & 0xffff) {
      found.push(this.element(this.seen));
    }
    return found;
  }

  /** Closes the doorbells. */
  close(): void {
    for (const fd of [this.kickFd, this.callFd, this.errorFd]) close(fd);
  }
}
