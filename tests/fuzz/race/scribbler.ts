/**
 * Changes to a guest's memory: rings and requests as a driver would write them, nearly so, and bits at
 * random.
 *
 * @module
 */

import { bufferAt } from "../../../ffi/deno.ts";
import { Random } from "../../support/random.ts";

/** A part of the memory. */
export interface Area {
  /** Byte in the memory. */
  readonly offset: number;
  readonly length: number;
}

/** A request that a device knows. */
export interface Pattern {
  /** What the driver writes, and where it has its place. */
  readonly bytes: Uint8Array;
  readonly offset: number;
  /** Bytes that the device may write. */
  readonly room: number;
}

/** A ring, and what is sent through it. */
export interface RingAreas {
  readonly descriptors: Area;
  readonly available: Area;
  readonly used: Area;
  /** Tables of {@link GROUP} descriptors each. */
  readonly tables: Area;
  readonly patterns: readonly Pattern[];
  /** Its doorbell. */
  readonly kick: number;
}

/** Descriptors of a request at most. In groups of so many they lie in rings and tables. */
export const GROUP = 4;

/** What the thread is to do. */
export interface Scribbling {
  /** The memory, as this process has mapped it. */
  readonly address: bigint;
  readonly byteLength: number;
  /** The guest address of its first byte. */
  readonly guest: number;
  readonly rings: readonly RingAreas[];
  /** Where any bit may change. */
  readonly anything: readonly Area[];
  /** Where the device writes, most of the time. */
  readonly room: Area;
  readonly packed: boolean;
  readonly indirect: boolean;
  /** Entries of each ring. */
  readonly size: number;
  readonly seed: number;
  /** The first word: set to 1 to end it, then it sets 2. The second: it sets 1 when it has begun. */
  readonly state: SharedArrayBuffer;
}

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const AVAIL = 0x80;
const USED = 0x8000;
const OWNER = AVAIL | USED;
/** Bytes of a descriptor. */
const DESCRIPTOR = 16;
/** The first bytes of a request say what it is. */
const FIELDS = 64;

/** A descriptor of a request. */
interface Piece {
  readonly address: number;
  readonly length: number;
  readonly flags: number;
}

export class Scribbler {
  readonly #what: Scribbling;
  readonly #random: Random;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #halves: Uint16Array;
  /** Descriptors that each table of a ring has now. */
  readonly #counts: readonly Uint8Array[];

  constructor(what: Scribbling) {
    this.#what = what;
    this.#random = new Random(what.seed);
    const memory = bufferAt(what.address, what.byteLength);
    this.#bytes = new Uint8Array(memory);
    this.#view = new DataView(memory);
    this.#halves = new Uint16Array(memory);
    this.#counts = what.rings.map(({ tables }) => new Uint8Array(groups(tables)));
    // At first all of it is right.
    for (const [i, ring] of what.rings.entries()) {
      for (const { bytes, offset } of ring.patterns) this.#bytes.set(bytes, offset);
      for (let table = 0; table < groups(ring.tables); table++) this.#table(i, table);
      for (let group = 0; group < groups(ring.descriptors); group++) this.#group(i, group);
    }
  }

  /** Whether this time it is to be wrong. */
  get #wild(): boolean {
    return this.#random.int(0, 1500) === 0;
  }

  /** Changes something. */
  once(): void {
    const random = this.#random;
    const { rings, anything } = this.#what;
    const index = random.int(0, rings.length - 1 + anything.length);
    if (index >= rings.length) return this.#flip(anything[index - rings.length]);
    const ring = rings[index];
    const { descriptors, available, used, tables } = ring;
    if (this.#wild) return this.#flip(random.pick([descriptors, available, used, tables]));
    switch (random.int(0, 5)) {
      case 0:
        return this.#table(index, random.int(0, groups(tables) - 1));
      case 1:
        return this.#group(index, random.int(0, groups(descriptors) - 1));
      case 2:
        if (random.int(0, 19) === 0) return this.#single(random.pick([descriptors, tables]));
        return this.#request(random.pick(ring.patterns));
      case 3:
        return this.#request(random.pick(ring.patterns));
      default:
        return this.#what.packed ? this.#event(available) : this.#available(ring);
    }
  }

  #flip({ offset, length }: Area): void {
    this.#bytes[offset + this.#random.int(0, length - 1)] ^= 1 << this.#random.int(0, 7);
  }

  /** The descriptors of a request, not more than there is room for. */
  #pieces({ patterns }: RingAreas, most: number): Piece[] {
    const random = this.#random;
    const { guest, byteLength, room } = this.#what;
    const { bytes, offset, room: writable } = random.pick(patterns);
    const pieces: Piece[] = [];
    const add = (at: number, length: number, flags: number, most: number): void => {
      const first = most > 1 && random.int(0, 1) === 0 ? random.int(0, length) : length;
      pieces.push({ address: guest + at, length: first, flags });
      if (first < length) pieces.push({ address: guest + at + first, length: length - first, flags });
    };
    const both = bytes.length > 0 && writable > 0 && most > 1;
    if (bytes.length > 0 || writable === 0) add(offset, bytes.length, 0, both ? most >> 1 : most);
    if (both || bytes.length === 0 && writable > 0) {
      // At times the device gets to write over anything: rings, tables, requests.
      const where = random.int(0, 60) === 0 ? { offset: 0, length: byteLength } : room;
      const at = where.offset + random.int(0, where.length - writable);
      add(at, writable, WRITE, both ? most >> 1 : most);
    }
    return pieces;
  }

  #put(at: number, { address, length }: Piece, third: number, fourth: number): void {
    const view = this.#view;
    view.setBigUint64(at, BigInt(address), true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + 12, third, true);
    view.setUint16(at + 14, fourth, true);
  }

  /** A whole request into a table. */
  #table(index: number, table: number): void {
    const ring = this.#what.rings[index];
    const pieces = this.#pieces(ring, GROUP);
    const at = ring.tables.offset + DESCRIPTOR * GROUP * table;
    for (const [i, piece] of pieces.entries()) {
      const last = i === pieces.length - 1;
      this.#put(at + DESCRIPTOR * i, piece, piece.flags | (last ? 0 : NEXT), last ? 0 : i + 1);
    }
    this.#counts[index][table] = pieces.length;
  }

  /** What is in a ring for a request: its descriptors, or one that refers to a table. */
  #entries(index: number, most: number): Piece[] {
    const { rings, guest, indirect, packed } = this.#what;
    const ring = rings[index];
    if (!indirect || this.#random.int(0, 1) === 0) return this.#pieces(ring, most);
    const table = this.#random.int(0, groups(ring.tables) - 1);
    const address = guest + ring.tables.offset + DESCRIPTOR * GROUP * table;
    // Where they are linked, the rest of the table does not matter.
    const count = packed ? this.#counts[index][table] : GROUP;
    return [{ address, length: DESCRIPTOR * count, flags: INDIRECT }];
  }

  /** Requests into a group of a ring's descriptors. */
  #group(index: number, group: number): void {
    const { packed, rings: { [index]: { descriptors } } } = this.#what;
    const start = GROUP * group;
    const first = descriptors.offset + DESCRIPTOR * start;
    if (!packed) {
      for (const [i, piece] of this.#entries(index, GROUP).entries()) {
        if (i > 0) this.#link(first + DESCRIPTOR * (i - 1), start + i);
        this.#put(first + DESCRIPTOR * i, piece, piece.flags, 0);
      }
      return;
    }
    const owner = this.#owner(first);
    // Every descriptor is there for the device, so that it never stands in front of one that belongs to nobody.
    for (let at = 0; at < GROUP;) {
      const pieces = this.#entries(index, GROUP - at);
      for (const [i, piece] of pieces.entries()) {
        const flags = piece.flags | owner | (i === pieces.length - 1 ? 0 : NEXT);
        this.#put(first + DESCRIPTOR * (at + i), piece, start + at, flags);
      }
      at += pieces.length;
    }
  }

  #link(at: number, next: number): void {
    this.#view.setUint16(at + 12, this.#view.getUint16(at + 12, true) | NEXT, true);
    this.#view.setUint16(at + 14, next, true);
  }

  /** Flags that make descriptors available: in the lap after the one in which they were returned, most of the time. */
  #owner(at: number): number {
    const owner = this.#view.getUint16(at + 14, true) & OWNER;
    if (this.#random.int(0, 7) === 0) return this.#random.pick([AVAIL, USED]);
    return owner === OWNER ? USED : owner === 0 ? AVAIL : owner;
  }

  /** One field of a descriptor that may be in use. */
  #single({ offset, length }: Area): void {
    const random = this.#random;
    const at = offset + DESCRIPTOR * random.int(0, length / DESCRIPTOR - 1);
    const { guest, byteLength } = this.#what;
    switch (random.int(0, 40)) {
      case 0:
        return this.#view.setUint32(at + 8, random.pick([0, 15, 16, 0xffff_ffff, 1 << 20]), true);
      case 1: {
        const end = guest + byteLength;
        return this.#view.setBigUint64(at, BigInt(random.pick([0, end, end - 1, 2 ** 52])), true);
      }
      case 2:
        return this.#view.setUint16(at + 12, random.int(0, 7), true);
      case 3:
        return this.#view.setUint16(at + 14, random.int(0, 0xffff), true);
      default:
        return this.#view.setUint32(at + 8, random.pick([1, 8, 16, 17, 512, 1024, 4096]), true);
    }
  }

  /** The fields of a request: as they should be, or one of them not. */
  #request({ bytes, offset }: Pattern): void {
    const random = this.#random;
    const length = Math.min(bytes.length, FIELDS);
    if (length === 0) return;
    if (random.int(0, 3) > 0) return this.#bytes.set(bytes.subarray(0, length), offset);
    this.#bytes[offset + random.int(0, length - 1)] = random.pick([0, 1, 2, 0x7f, 0x80, 0xff]);
  }

  /** What a driver wants to be told of a packed ring. */
  #event({ offset }: Area): void {
    this.#halves[offset / 2 + this.#random.int(0, 1)] = this.#random.int(0, 0xffff);
  }

  /** The available ring of a split ring. */
  #available({ available: { offset, length }, used, descriptors }: RingAreas): void {
    const random = this.#random;
    const { size } = this.#what;
    const at = offset / 2;
    const heads = groups(descriptors);
    // What it wants to be told.
    if (random.int(0, 7) === 0) this.#halves[at] = random.int(0, 1);
    if (random.int(0, 7) === 0) this.#halves[at + length / 2 - 1] = random.int(0, 0xffff);
    const offered = Atomics.load(this.#halves, at + 1);
    const returned = Atomics.load(this.#halves, used.offset / 2 + 1);
    const more = random.pick([1, 1, 2, 4]);
    if ((offered + more - returned & 0xffff) > heads && !this.#wild) return;
    for (let i = 0; i < more; i++) {
      const position = offered + i & 0xffff;
      const group = random.int(0, 40) === 0 ? random.int(0, heads - 1) : position % heads;
      this.#halves[at + 2 + position % size] = GROUP * group;
    }
    Atomics.store(this.#halves, at + 1, offered + more);
  }
}

/** Groups of descriptors in a part of memory. */
function groups({ length }: Area): number {
  return length / DESCRIPTOR / GROUP;
}
