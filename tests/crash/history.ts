/**
 * What a disk may hold after the writes that it was given: a checker for lost, late, torn and misplaced writes.
 *
 * Every sector that is written says which write it is of, and the history knows when each was issued and acknowledged. A
 * write that was acknowledged before another was issued has to give way to that one; of two that were under way at the
 * same time either may be the last.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { SECTOR } from "../../src/devices/blk/mod.ts";

const WORDS = SECTOR / 4;
const MAGIC = 0x57_52_49_54;
/** u32 each: magic, number of the write, sector. What follows is computed from these. */
const HEADER_WORDS = 3;

/** A write, from when it is issued. Times are counts of the events of one history. */
export interface Write {
  /** Its number, from 1, in the order of issue. */
  readonly number: number;
  /** Where it starts. */
  readonly sector: number;
  /** Sectors. */
  readonly count: number;
  /** When it was issued. */
  readonly issuedAt: number;
  /** When it was acknowledged, or given up by its driver; Infinity while it is under way. */
  endedAt: number;
}

/** A read under way: by sector, which writes it may find. */
export interface Reading {
  readonly sector: number;
  /** When it was given to the disk. */
  readonly startedAt: number;
  readonly allowed: readonly Write[][];
}

/** Which bytes are looked at: what a reader sees, or what is left when the power is cut. */
export type Kind = "seen" | "durable";

/** What a disk holds that it must not hold. */
export class WrongContentError extends Error {
  /** The error's class name. */
  override readonly name = "WrongContentError";
}

/** Fills a sector with what the write of that number puts there. */
function fill(words: Uint32Array, number: number, sector: number): void {
  words[0] = MAGIC;
  words[1] = number;
  words[2] = sector;
  let x = Math.imul(number, 0x9e37_79b1) ^ Math.imul(sector + 1, 0x85eb_ca6b);
  for (let i = HEADER_WORDS; i < WORDS; i++) {
    x = Math.imul(x ^ (x >>> 15), 0x2c1b_3c6d) + i;
    words[i] = x;
  }
}

/** The bytes of a write: different in each sector and from those of every other write. */
export function contentsOf(write: Pick<Write, "number" | "sector" | "count">): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(write.count * WORDS);
  for (let i = 0; i < write.count; i++) {
    fill(words.subarray(i * WORDS, (i + 1) * WORDS), write.number, write.sector + i);
  }
  return new Uint8Array(words.buffer);
}

const expected = new Uint32Array(WORDS);
const expectedBytes = Buffer.from(expected.buffer);

/** Which write a sector is of (0: none, it is zeros), or what is wrong with it. */
function numberIn(bytes: Uint8Array, sector: number): number | string {
  const header = new DataView(bytes.buffer, bytes.byteOffset, 12);
  const number = header.getUint32(4, true);
  if (header.getUint32(0, true) !== MAGIC) {
    return bytes.every((byte) => byte === 0) ? 0 : "holds what nobody wrote";
  }
  const place = header.getUint32(8, true);
  if (place !== sector) return `holds sector ${place} of write ${number}`;
  fill(expected, number, sector);
  return Buffer.compare(bytes, expectedBytes) === 0 ? number : `holds a torn write ${number}`;
}

/**
 * Whether a sector is what a reader finds who looks while it is written: every word is of some write that it may hold,
 * and one of these was still under way. A read and a write of the same place at the same time are not ordered by ext4,
 * which copies to and from the page cache without a lock between the two.
 */
function isBeingWritten(bytes: Uint8Array, sector: number, { allowed, startedAt }: ReadOfSector): boolean {
  const words = new DataView(bytes.buffer, bytes.byteOffset, SECTOR);
  const wholes = allowed.map(({ number }) => {
    const whole = new Uint32Array(WORDS);
    if (number !== 0) fill(whole, number, sector);
    return whole;
  });
  let underWay = false;
  for (let i = 0; i < WORDS; i++) {
    const word = words.getUint32(i * 4, true);
    const of = wholes.findIndex((whole) => whole[i] === word);
    if (of < 0) return false;
    underWay ||= allowed[of].endedAt > startedAt;
  }
  return underWay;
}

/** What a read may find in one sector. */
interface ReadOfSector {
  readonly allowed: readonly Write[];
  readonly startedAt: number;
}

/** The writes to a disk of zeros, and what it may hold in consequence. */
export class History {
  /** Sectors of the disk that are looked after. */
  readonly sectors: number;
  /** Writes issued so far: the number of the last. */
  issued = 0;
  /** Writes acknowledged so far. */
  acknowledged = 0;
  #clock = 0;
  readonly #pending = new Set<Write>();
  /** By sector, which writes it may hold. */
  readonly #seen: Write[][];
  readonly #durable: Write[][] | undefined;
  /** Acknowledged and not known to be durable, in that order. */
  #volatile: Write[] = [];
  readonly #readings = new Set<Reading>();

  /** @param durable whether to know as well what must be left when the power is cut */
  constructor(sectors: number, durable = false) {
    this.sectors = sectors;
    const zeros: Write = { number: 0, sector: 0, count: sectors, issuedAt: 0, endedAt: 0 };
    this.#seen = Array.from({ length: sectors }, () => [zeros]);
    this.#durable = durable ? Array.from({ length: sectors }, () => [zeros]) : undefined;
  }

  /** Writes under way. */
  get pending(): number {
    return this.#pending.size;
  }

  /** A write is about to be given to the disk. */
  issue(sector: number, count: number): Write {
    const write = { number: ++this.issued, sector, count, issuedAt: ++this.#clock, endedAt: Infinity };
    this.#pending.add(write);
    for (let i = sector; i < sector + count; i++) {
      this.#seen[i].push(write);
      this.#durable?.[i].push(write);
      for (const reading of this.#readings) reading.allowed[i - reading.sector]?.push(write);
    }
    return write;
  }

  /** The disk has told that a write is done. Without a cache it is durable then. */
  acknowledge(write: Write, writeThrough = false): void {
    this.acknowledged++;
    write.endedAt = ++this.#clock;
    this.#pending.delete(write);
    superseding(this.#seen, write);
    if (this.#durable === undefined) return;
    if (writeThrough) superseding(this.#durable, write);
    else this.#volatile.push(write);
  }

  /**
   * The driver of the writes under way is gone and another is served: each of them was done or not, and none is done from
   * now on.
   */
  abandon(): void {
    this.#clock++;
    for (const write of this.#pending) write.endedAt = this.#clock;
    this.#pending.clear();
  }

  /** A flush is about to be given to the disk. Returns what to call when it is acknowledged. */
  flush(): () => void {
    const issuedAt = ++this.#clock;
    return () => {
      const later = this.#volatile.findIndex(({ endedAt }) => endedAt > issuedAt);
      const covered = this.#volatile.splice(0, later < 0 ? this.#volatile.length : later);
      if (this.#durable !== undefined) { for (const write of covered) superseding(this.#durable, write); }
    };
  }

  /** A read is about to be given to the disk. */
  startReading(sector: number, count: number): Reading {
    const allowed = this.#seen.slice(sector, sector + count).map((list) => [...list]);
    const reading = { sector, startedAt: ++this.#clock, allowed };
    this.#readings.add(reading);
    return reading;
  }

  /**
   * A read has come back.
   *
   * @throws {WrongContentError} for the first sector that does not hold what it may hold
   */
  finishReading(reading: Reading, bytes: Uint8Array): void {
    this.#readings.delete(reading);
    const { startedAt } = reading;
    reading.allowed.forEach((allowed, i) => {
      const sector = reading.sector + i;
      const held = sectorOf(bytes, i);
      const found = numberIn(held, sector);
      if (typeof found === "string" && isBeingWritten(held, sector, { allowed, startedAt })) return;
      const write = this.#expect(found, sector, allowed);
      // Whoever reads later must not see what was there before.
      if (write.number !== 0) superseding(this.#seen, write, sector, 1);
    });
  }

  /**
   * Checks the first sectors of a disk while nothing is done to it; or what is left of them when the power is cut.
   *
   * @throws {WrongContentError} for the first sector that does not hold what it may hold
   */
  check(bytes: Uint8Array, kind: Kind = "seen"): void {
    const table = kind === "seen" ? this.#seen : this.#durable;
    if (table === undefined) throw new TypeError("this history does not know what is durable");
    const count = Math.min(this.sectors, bytes.length / SECTOR);
    for (let i = 0; i < count; i++) this.#expect(numberIn(sectorOf(bytes, i), i), i, table[i]);
  }

  #expect(found: number | string, sector: number, allowed: readonly Write[]): Write {
    const write = allowed.find(({ number }) => number === found);
    if (write !== undefined) return write;
    const what = typeof found === "string"
      ? found
      : found > this.issued
      ? `holds write ${found}, which was never issued`
      : `holds write ${found}: one was lost, or one was done late`;
    const numbers = allowed.map(({ number }) => number).join(" or ");
    throw new WrongContentError(`sector ${sector} ${what}; it must be of write ${numbers}`);
  }
}

function sectorOf(bytes: Uint8Array, i: number): Uint8Array {
  return bytes.subarray(i * SECTOR, (i + 1) * SECTOR);
}

/** A write has certainly been done: what had ended before it was issued is not there any more. */
function superseding(
  table: Write[][],
  write: Write,
  sector: number = write.sector,
  count: number = write.count,
): void {
  for (let i = sector; i < sector + count; i++) {
    const list = table[i];
    // Most often it is the only one that is left.
    if (list.length > 1) table[i] = list.filter(({ endedAt }) => endedAt >= write.issuedAt);
  }
}
