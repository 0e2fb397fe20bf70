/**
 * In-flight tracking (vhost-user, "Inflight I/O tracking"): what both ring formats have in common. A region records which
 * requests a device has taken and not returned, so that the next device can take them again when it has died.
 *
 * A region comes back from the front-end, who may have put anything there: it is copied, and the copy is checked, before
 * any of it is used. While a ring runs, the region is written and never read.
 *
 * @module
 */

import { RingError } from "./ring_error.ts";

/** The bytes of one ring's region. They must stay mapped as long as the ring is used. */
export interface InflightRegion {
  /** The mapping. */
  readonly buffer: ArrayBuffer;
  /** Offset of the first byte in it, a multiple of 8. */
  readonly byteOffset: number;
  /** Bytes: {@link inflightRegionSize} of the ring, or more. */
  readonly byteLength: number;
}

/** Bytes before the entries, and of each entry. */
export const InflightLayout = {
  split: { header: 16, entry: 16 },
  packed: { header: 32, entry: 32 },
} as const;

/** Regions of a buffer follow each other at multiples of this. */
const ALIGNMENT = 64;

/** Bytes from one ring's region to the next, as other back-ends have it too. */
export function inflightRegionSize(packed: boolean, queueSize: number): number {
  const { header, entry } = InflightLayout[packed ? "packed" : "split"];
  return Math.ceil((header + entry * queueSize) / ALIGNMENT) * ALIGNMENT;
}

/** The version that all regions have; 0 is one that nobody has used. */
export const INFLIGHT_VERSION = 1;

// Fields of both headers, as places in 16-bit words; the 64 bits of features come first.
const VERSION = 4;
const DESC_NUM = 5;

/** Refuses a region. */
export function wrongInflight(field: string, expected: string, got: unknown): never {
  throw new RingError(`in-flight region: ${field} must be ${expected}, got ${got}`);
}

/** A region in views of each width. */
export class InflightViews {
  /** Bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** 16-bit words. */
  readonly halves: Uint16Array<ArrayBuffer>;
  /** 32-bit words. */
  readonly words: Uint32Array<ArrayBuffer>;

  /** Views of `byteLength` bytes; a multiple of 8, as is `byteOffset`. */
  constructor(buffer: ArrayBuffer, byteOffset: number, byteLength: number) {
    this.bytes = new Uint8Array(buffer, byteOffset, byteLength);
    this.halves = new Uint16Array(buffer, byteOffset, byteLength / 2);
    this.words = new Uint32Array(buffer, byteOffset, byteLength / 4);
  }

  /**
   * Views of the region of a ring.
   *
   * @throws {RingError} when it is too small, or starts where no structure may
   */
  static of(region: InflightRegion, packed: boolean, size: number): InflightViews {
    const { header, entry } = InflightLayout[packed ? "packed" : "split"];
    const { buffer, byteOffset, byteLength } = region;
    const least = header + entry * size;
    if (byteOffset % 8 !== 0) wrongInflight("offset", "a multiple of 8", byteOffset);
    if (byteLength < least) wrongInflight("size", `at least ${least} bytes for ${size} entries`, byteLength);
    return new InflightViews(buffer, byteOffset, byteLength - byteLength % 8);
  }

  /** A copy that nobody else can change. */
  copy(): InflightViews {
    return new InflightViews(this.bytes.slice().buffer, 0, this.bytes.length);
  }

  /** Whether a device has used it before. */
  get used(): boolean {
    return this.halves[VERSION] !== 0;
  }

  /** Makes an empty region: zeros, and what `fill` puts there. Only the version, at last, makes it count. */
  initialize(size: number, fill: () => void): void {
    this.bytes.fill(0);
    this.halves[DESC_NUM] = size;
    fill();
    Atomics.store(this.halves, VERSION, INFLIGHT_VERSION);
  }

  /**
   * Checks the fields that both headers have. Call it on a copy.
   *
   * @returns how many entries there are: as many as the ring has, or more
   * @throws {RingError} when they make no sense
   */
  check(packed: boolean, size: number): number {
    const { header, entry } = InflightLayout[packed ? "packed" : "split"];
    const [features, more] = this.words;
    const version = this.halves[VERSION];
    const entries = this.halves[DESC_NUM];
    const most = Math.floor((this.bytes.length - header) / entry);
    if (features !== 0 || more !== 0) {
      wrongInflight("features", "0", `0x${((BigInt(more) << 32n) | BigInt(features)).toString(16)}`);
    }
    if (version !== INFLIGHT_VERSION) wrongInflight("version", `${INFLIGHT_VERSION}`, version);
    if (entries < size || entries > most) {
      wrongInflight("desc_num", `from ${size}, as the ring has, to ${most}, as find room`, entries);
    }
    return entries;
  }

  /** The flag of an entry, which starts at a byte. */
  inflight(entry: number, at: number): boolean {
    const flag = this.bytes[at];
    if (flag > 1) wrongInflight(`inflight of entry ${entry}`, "0 or 1", flag);
    return flag === 1;
  }

  /** The counter of an entry, which is 8 bytes after its start. */
  counter(entry: number, at: number): number {
    const counter = this.words[at / 4 + 2] + this.words[at / 4 + 3] * 2 ** 32;
    if (counter >= Number.MAX_SAFE_INTEGER) wrongInflight(`counter of entry ${entry}`, "below 2^53", counter);
    return counter;
  }

  /** Sets the counter of an entry. */
  setCounter(at: number, counter: number): void {
    this.words[at / 4 + 2] = counter;
    this.words[at / 4 + 3] = counter / 2 ** 32;
  }
}

/** Entries in the order of their counters, and the counter to go on with. */
export function inOrderOf(
  entries: readonly number[],
  counter: (entry: number) => number,
): { sorted: readonly number[]; next: number } {
  const counters = new Map(entries.map((entry) => [entry, counter(entry)]));
  const of = (entry: number): number => counters.get(entry) ?? 0;
  const sorted = [...entries].sort((a, b) => of(a) - of(b));
  const last = sorted.at(-1);
  return { sorted, next: last === undefined ? 0 : of(last) + 1 };
}
