/**
 * The rings of a driver that may do anything, in both formats: written by hand, without the toolkit's code for drivers, so that
 * a mistake in that is seen.
 *
 * @module
 */

import type { Piece } from "../../../src/frontend/mod.ts";
import { type Descriptor, INDIRECT, NEXT, type Ring, view, WRITE } from "../../session/rings.ts";
import { AVAIL, START, USED } from "../../virtqueue/raw_packed_ring.ts";
import type { Answer } from "./driver.ts";
import type { Layout, Request } from "./form.ts";

/** A buffer in guest memory. */
export interface Part {
  readonly offset: number;
  readonly length: number;
}

/** A request that the device has. */
export interface Sent {
  readonly request: Request;
  readonly writable: readonly Part[];
  readonly room: number;
  /** Descriptors of the ring. */
  readonly descriptors: number;
}

/** What came back: the number under which a request was sent, and what the device says that it has written. */
export interface Returned {
  readonly id: number;
  readonly written: number;
}

/** A table in guest memory, and its address. */
export interface Table {
  readonly piece: Piece;
  readonly address: number;
}

/** One of the driver's rings. */
export abstract class Lane {
  /** Its parts, and the messages that set it up. */
  readonly ring: Ring;
  /** Requests that the device has. */
  readonly sent = new Map<number, Sent>();
  /** Those that have come back. */
  readonly answers = new WeakMap<Request, Answer>();
  /** Whether the device has said that it is broken. */
  broken = false;
  /** Next descriptor to use: they are used in turn, and a request only when all that it needs are free. */
  protected next = 0;
  /** Guest address behind the last byte of memory. */
  readonly #memoryEnd: number;
  #used = 0;

  /** Takes over a ring that was laid out, in memory that ends at a guest address. */
  constructor(ring: Ring, memoryEnd: number) {
    this.ring = ring;
    this.#memoryEnd = memoryEnd;
  }

  /** Where SET_VRING_BASE starts a ring of this format. */
  static base(packed: boolean): number {
    return packed ? START : 0;
  }

  /** A ring of one format or the other. */
  static of(ring: Ring, memoryEnd: number, packed: boolean): Lane {
    return packed ? new PackedLane(ring, memoryEnd) : new SplitLane(ring, memoryEnd);
  }

  /** Descriptors that are free. */
  get free(): number {
    return this.ring.size - this.#used;
  }

  /** What the device may write of the ring itself. */
  abstract readonly devicesOwn: readonly Piece[];

  /**
   * Writes a request into the ring, or into a table and a descriptor that refers to it, wrong in the way that the layout says.
   * The device sees it after {@link show}.
   *
   * @returns its number, or -1 when the device cannot return it: the ring is broken then
   */
  abstract write(chain: readonly Descriptor[], table: Table | undefined, layout: Layout): number;

  /** Shows the device what was written last. */
  abstract show(): void;

  /** Takes what has come back next, if anything. */
  abstract take(): Returned | undefined;

  /** Empties a ring that is stopped. */
  reset(): void {
    this.ring.reset();
    this.next = 0;
    this.#used = 0;
    this.broken = false;
  }

  /** All that was sent is back. */
  allBack(): void {
    this.#used = 0;
  }

  /** Goes on behind so many descriptors. */
  protected advance(count: number): void {
    this.next = this.slot(count);
    this.#used += count;
  }

  /** The place of a descriptor that comes so many behind the next. */
  protected slot(count: number): number {
    return (this.next + count) % this.ring.size;
  }

  /** Makes a descriptor wrong whose address or length counts, in the ways that both formats know. */
  protected misplace(words: DataView, at: number, layout: Layout): void {
    switch (layout) {
      case "address outside":
        words.setBigUint64(at, 0x7fff_ffff_ffff_f000n, true);
        words.setUint32(at + 8, 4096, true);
        break;
      case "address at the end":
        words.setBigUint64(at, BigInt(this.#memoryEnd - 4), true);
        words.setUint32(at + 8, 8, true);
        break;
      case "length absurd":
        words.setUint32(at + 8, 0xffff_ffff, true);
    }
  }
}

/** A split ring (virtio 1.4, section 2.7). */
class SplitLane extends Lane {
  /** Next position of the used ring. */
  #seen = 0;
  #head = 0;
  #tooFar = false;

  override get devicesOwn(): readonly Piece[] {
    return [this.ring.used];
  }

  override write(chain: readonly Descriptor[], table: Table | undefined, layout: Layout): number {
    const { ring } = this;
    const head = this.next;
    const at = (n: number): number => table === undefined ? this.slot(n) : n;
    for (const [i, descriptor] of chain.entries()) {
      const last = i === chain.length - 1;
      const flags = (descriptor.flags ?? 0) | (last ? 0 : NEXT);
      ring.describe(at(i), { ...descriptor, flags, next: last ? 0 : at(i + 1) }, table?.piece);
    }
    if (table !== undefined) {
      ring.describe(head, { address: table.address, length: 16 * chain.length, flags: INDIRECT });
    }
    this.#spoil(table?.piece ?? ring.descriptor, at(0), at(chain.length - 1), layout);
    this.advance(table === undefined ? chain.length : 1);
    this.#tooFar = layout === "index too far";
    this.#head = layout === "head outside" ? 0xffff : head;
    return this.#tooFar || this.#head !== head ? -1 : head;
  }

  #spoil(where: Piece, first: number, last: number, layout: Layout): void {
    const { size, descriptor } = this.ring;
    const words = view(where);
    const referring = view(descriptor);
    const head = this.next;
    const add = (at: number, flags: number): void =>
      words.setUint16(16 * at + 12, words.getUint16(16 * at + 12, true) | flags, true);
    switch (layout) {
      case "readable after writable":
        add(first, WRITE | NEXT);
        words.setUint16(16 * last + 12, 0, true);
        words.setUint16(16 * first + 14, (first + 1) % size, true);
        break;
      case "loop":
        add(last, NEXT);
        words.setUint16(16 * last + 14, first, true);
        break;
      case "next outside":
        add(last, NEXT);
        words.setUint16(16 * last + 14, 0xffff, true);
        break;
      case "nested table":
        add(0, INDIRECT);
        break;
      case "table cut off":
        referring.setUint32(16 * head + 8, referring.getUint32(16 * head + 8, true) - 3, true);
        break;
      case "table with next":
        referring.setUint16(16 * head + 12, INDIRECT | NEXT, true);
        break;
      default:
        this.misplace(words, 16 * last, layout);
    }
  }

  override show(): void {
    if (this.#tooFar) this.ring.offeredIndex = 0x8000 + this.#seen & 0xffff;
    else this.ring.offer(this.#head);
  }

  override take(): Returned | undefined {
    const { ring } = this;
    if (this.#seen === ring.usedIndex) return undefined;
    const { head, written } = ring.returned(this.#seen);
    this.#seen = (this.#seen + 1) & 0xffff;
    return { id: head, written };
  }

  override reset(): void {
    super.reset();
    this.#seen = 0;
  }
}

/** A packed ring (virtio 1.4, section 2.8). */
class PackedLane extends Lane {
  /** Wrap counters of the driver and of the device, as the flags that they stand for. */
  #available = AVAIL;
  #returned = AVAIL | USED;
  /** Next slot that the device will return. */
  #seen = 0;
  /** The first slot of what was written last, and the flags that show it. */
  #first = 0;
  #shown = 0;

  /** What was returned is written over descriptors. */
  override get devicesOwn(): readonly Piece[] {
    return [this.ring.descriptor, this.ring.used];
  }

  override write(chain: readonly Descriptor[], table: Table | undefined, layout: Layout): number {
    const { ring } = this;
    const words = view(ring.descriptor);
    const slots: readonly Descriptor[] = table === undefined
      ? chain
      : [{ address: table.address, length: 16 * chain.length, flags: INDIRECT }];
    // Of flags in a table only WRITE means anything.
    if (table !== undefined) { for (const [i, each] of chain.entries()) ring.describe(i, each, table.piece); }
    const last = this.slot(slots.length - 1);
    // The number is the driver's to choose, whether there is such a descriptor or not.
    const id = layout === "head outside" && !this.sent.has(0xffff) ? 0xffff : this.next;
    this.#first = this.next;
    let owner = this.#available;
    for (const [i, { address, length, flags = 0 }] of slots.entries()) {
      const at = this.slot(i);
      // Only the last one's number counts.
      const number = at === last ? id : 0;
      const shown = flags | owner | (at === last ? 0 : NEXT);
      const kept = i === 0 ? words.getUint16(16 * at + 14, true) : shown;
      if (i === 0) this.#shown = shown;
      ring.describe(at, { address, length, flags: number, next: kept });
      if (at === ring.size - 1) owner ^= AVAIL | USED;
    }
    const ends = this.#spoil(table, chain.length, last, layout);
    this.#available = owner;
    this.advance(slots.length);
    return ends ? id : -1;
  }

  /** Makes it wrong; returns whether the request has an end. */
  #spoil(table: Table | undefined, count: number, last: number, layout: Layout): boolean {
    const { ring } = this;
    const words = view(ring.descriptor);
    const entries = table === undefined ? words : view(table.piece);
    const flagsAt = table === undefined ? 14 : 12;
    const [first, end] = table === undefined ? [this.#first, last] : [0, count - 1];
    const add = (at: number, flags: number): void => {
      if (table === undefined && at === this.#first) this.#shown |= flags;
      else entries.setUint16(16 * at + flagsAt, entries.getUint16(16 * at + flagsAt, true) | flags, true);
    };
    switch (layout) {
      case "readable after writable":
        if (end === first) break;
        add(first, WRITE);
        entries.setUint16(
          16 * end + flagsAt,
          entries.getUint16(16 * end + flagsAt, true) & ~WRITE,
          true,
        );
        break;
      case "loop":
      case "index too far":
        // There are no links. What has no end goes on around the ring, with nothing else wrong on the way.
        for (let n = count; n < ring.size; n++) {
          const at = 16 * this.slot(n) + 14;
          const writable = (count > 1 ? words.getUint16(16 * last + 14, true) : this.#shown) & WRITE;
          words.setUint16(at, words.getUint16(at, true) & (AVAIL | USED) | NEXT | writable, true);
        }
        if (count > 1) add(last, NEXT);
        this.#shown |= NEXT;
        return false;
      case "next outside":
        // Flags that mean nothing.
        add(end, 0x7f78);
        break;
      case "nested table":
        add(0, INDIRECT | NEXT);
        break;
      case "table cut off":
        words.setUint32(16 * this.#first + 8, 16 * count - 3, true);
        break;
      case "table with next":
        this.#shown |= NEXT;
        break;
      default:
        this.misplace(entries, 16 * end, layout);
    }
    return true;
  }

  override show(): void {
    view(this.ring.descriptor).setUint16(16 * this.#first + 14, this.#shown, true);
  }

  override take(): Returned | undefined {
    const words = view(this.ring.descriptor);
    const at = 16 * this.#seen;
    const flags = words.getUint16(at + 14, true);
    if ((flags & (AVAIL | USED)) !== this.#returned) return undefined;
    const id = words.getUint16(at + 12, true);
    const sent = this.sent.get(id);
    this.#seen += sent?.descriptors ?? 1;
    if (this.#seen >= this.ring.size) {
      this.#seen -= this.ring.size;
      this.#returned ^= AVAIL | USED;
    }
    // Without WRITE the length means nothing.
    return { id, written: (flags & WRITE) === 0 ? 0 : words.getUint32(at + 8, true) };
  }

  override reset(): void {
    super.reset();
    for (const { bytes } of [this.ring.descriptor, this.ring.available, this.ring.used]) bytes.fill(0);
    this.#available = AVAIL;
    this.#returned = AVAIL | USED;
    this.#seen = 0;
  }
}
