/**
 * Bytes that lie in several pieces of guest memory.
 *
 * @module
 */

import type { Iovec } from "../../ffi/iovec.ts";
import { Collage, type Pages } from "../../ffi/mapping.ts";
import type { DirtyLog } from "./dirty_log.ts";
import type { Region } from "./region.ts";

const TWO_32 = 0x1_0000_0000;
const PAGE = 4096;
/** Bytes that come from another processor at once. */
const LINE = 64;
/** Pieces for which a list keeps room between requests: more than any driver uses, few enough for every ring slot. */
const ROOM_KEPT = 512;
/** Pieces for which a list has room once it has had one: what most drivers use. */
const ROOM_AT_FIRST = 4;
const NO_NUMBERS = new Float64Array(0);

function widened(numbers: Float64Array, length: number): Float64Array {
  const wide = new Float64Array(length);
  wide.set(numbers);
  return wide;
}

function rewrite(view: DataView, at: number): void {
  view.setUint8(at, view.getUint8(at));
}

/** Up to here copying word by word takes less time than making a view. Bytes. */
const SHORT = 192;

function copyBetween(from: Region, at: number, to: Region, target: number, length: number): void {
  if (length > SHORT) {
    if (from === to) to.bytes.copyWithin(target, at, at + length);
    else to.bytes.set(from.bytes.subarray(at, at + length), target);
    return;
  }
  const source = from.view;
  const view = to.view;
  let i = 0;
  // No number is made of the 64 bits: the compiler passes them on as they are.
  for (; i + 32 <= length; i += 32) {
    view.setBigUint64(target + i, source.getBigUint64(at + i, true), true);
    view.setBigUint64(target + i + 8, source.getBigUint64(at + i + 8, true), true);
    view.setBigUint64(target + i + 16, source.getBigUint64(at + i + 16, true), true);
    view.setBigUint64(target + i + 24, source.getBigUint64(at + i + 24, true), true);
  }
  for (; i + 8 <= length; i += 8) view.setBigUint64(target + i, source.getBigUint64(at + i, true), true);
  for (; i < length; i++) view.setUint8(target + i, source.getUint8(at + i));
}

/**
 * A list of pieces of guest memory, read and written as if they were one. Made once per ring slot and filled anew for
 * each request, so nothing is allocated in steady state.
 *
 * Whoever reads a value twice may see two values: the guest can change its memory at any time. Read once into a
 * variable, check that, use that.
 */
export class Segments {
  /** Pieces. */
  count = 0;
  /** Sum of the pieces, bytes. */
  byteLength = 0;
  /** Pieces for which there is room. */
  #room = 0;
  /**
   * Offset and length of each piece in turn. Few objects, as this is what a request costs: each is a miss in the nearest cache
   * when a ring has many requests. One kind of array, whatever the numbers: others change their form between small and large ones.
   */
  #places: Float64Array = NO_NUMBERS;
  /** The region of the first piece, and of all unless they are mixed. */
  #region: Region | undefined;
  #mixed = false;
  #regions: Region[] = [];

  /** Empties the list. Room that only an unusually long request needed is given back. */
  clear(): void {
    this.count = 0;
    this.byteLength = 0;
    this.#mixed = false;
    if (this.#room > ROOM_KEPT) this.#shrink();
  }

  #shrink(): void {
    this.#room = 0;
    this.#regions = [];
    this.#places = NO_NUMBERS;
  }

  #grow(): void {
    this.#room = Math.max(ROOM_AT_FIRST, 2 * this.#room);
    this.#places = widened(this.#places, 2 * this.#room);
  }

  /** Adds a piece: `length` bytes from `offset` of a region, which the caller has checked to lie within. */
  push(region: Region, offset: number, length: number): void {
    const at = this.count;
    if (at === this.#room) this.#grow();
    if (region !== this.#region || this.#mixed) this.#setRegion(region);
    const places = this.#places;
    places[2 * at] = offset;
    places[2 * at + 1] = length;
    this.count = at + 1;
    this.byteLength += length;
  }

  #setRegion(region: Region): void {
    if (this.count === 0) {
      this.#region = region;
      return;
    }
    if (!this.#mixed) {
      this.#mixed = true;
      for (let i = 0; i < this.count; i++) this.#regions[i] = this.#region as Region;
    }
    this.#regions[this.count] = region;
  }

  #regionOf(piece: number): Region {
    return (this.#mixed ? this.#regions[piece] : this.#region) as Region;
  }

  /** Where all bytes are, when they follow each other within one region; else `undefined`. */
  contiguous(): { region: Region; offset: number } | undefined {
    if (this.count === 0) return undefined;
    for (let i = 1; i < this.count; i++) {
      const follows = this.#places[2 * i] === this.#places[2 * (i - 1)] + this.#places[2 * (i - 1) + 1];
      if (!follows || this.#regionOf(i) !== this.#regionOf(0)) return undefined;
    }
    return { region: this.#regionOf(0), offset: this.#places[0] };
  }

  /**
   * The same bytes in a row, by mapping their pages a second time.
   *
   * @returns the pages and the offset of the first byte in them, or `undefined` when the bytes do not fill whole pages
   * between the first and the last piece
   * @throws {OsError}
   */
  collage(): { collage: Collage; offset: number } | undefined {
    const pages: Pages[] = [];
    for (let i = 0; i < this.count; i++) {
      const start = this.#regionOf(i).hostAddress + this.#places[2 * i];
      const end = start + this.#places[2 * i + 1];
      if ((i > 0 && start % PAGE !== 0) || (i < this.count - 1 && end % PAGE !== 0)) return undefined;
      const first = Math.floor(start / PAGE) * PAGE;
      pages.push({ address: BigInt(first), byteLength: Math.ceil(end / PAGE) * PAGE - first });
    }
    const offset = (this.#regionOf(0).hostAddress + this.#places[0]) % PAGE;
    return { collage: new Collage(pages), offset };
  }

  /**
   * Reads a byte of each of the first two lines. Whoever does so for many lists, before working on the first, waits once for
   * memory that another processor has written, in place of once for each.
   *
   * @returns something of what was read, so that no compiler leaves it out
   */
  touch(): number {
    if (this.count === 0) return 0;
    const { view } = this.#regionOf(0);
    const places = this.#places;
    const first = view.getUint8(places[0]);
    if (places[1] > LINE) return first ^ view.getUint8(places[0] + LINE);
    return this.count === 1 ? first : first ^ this.#regionOf(1).view.getUint8(places[2]);
  }

  /** The same for memory that is to be written: writes those bytes as they are. */
  claim(): void {
    if (this.count === 0) return;
    const { view } = this.#regionOf(0);
    const places = this.#places;
    rewrite(view, places[0]);
    if (places[1] > LINE) rewrite(view, places[0] + LINE);
    else if (this.count > 1) rewrite(this.#regionOf(1).view, places[2]);
  }

  /** Keeps the memory mapped until {@link unpin}. */
  pin(): void {
    for (let i = 0; i < this.count; i++) this.#regionOf(i).pin();
  }

  /** Ends {@link pin}. */
  unpin(): void {
    for (let i = 0; i < this.count; i++) this.#regionOf(i).unpin();
  }

  /** Marks all of it as written. */
  markDirty(log: DirtyLog): void {
    for (let i = 0; i < this.count; i++) {
      log.mark(this.#regionOf(i).guestAddress + this.#places[2 * i], this.#places[2 * i + 1]);
    }
  }

  /** The piece in which a byte lies, and its place in the region; -1 past the end. Sets {@link #at}. */
  #find(position: number): number {
    let at = position;
    for (let i = 0; i < this.count; i++) {
      if (at < this.#places[2 * i + 1]) {
        this.#at = at;
        return i;
      }
      at -= this.#places[2 * i + 1];
    }
    return -1;
  }
  #at = 0;

  #check(position: number, length: number): void {
    if (position < 0 || position + length > this.byteLength) {
      throw new RangeError(`bytes ${position} to ${position + length} of ${this.byteLength}`);
    }
  }

  /**
   * The byte at a position.
   *
   * @throws {RangeError} past the end
   */
  getUint8(position: number): number {
    this.#check(position, 1);
    const i = this.#find(position);
    return this.#regionOf(i).view.getUint8(this.#places[2 * i] + this.#at);
  }

  /**
   * Sets the byte at a position.
   *
   * @throws {RangeError} past the end
   */
  setUint8(position: number, value: number): void {
    this.#check(position, 1);
    const i = this.#find(position);
    this.#regionOf(i).view.setUint8(this.#places[2 * i] + this.#at, value);
  }

  /**
   * Two bytes, little-endian.
   *
   * @throws {RangeError} past the end
   */
  getUint16(position: number): number {
    if (this.count > 0 && position + 2 <= this.#places[1] && position >= 0) {
      return this.#regionOf(0).view.getUint16(this.#places[0] + position, true);
    }
    return this.getUint8(position) | this.getUint8(position + 1) << 8;
  }

  /**
   * Four bytes, little-endian.
   *
   * @throws {RangeError} past the end
   */
  getUint32(position: number): number {
    if (this.count > 0 && position + 4 <= this.#places[1] && position >= 0) {
      return this.#regionOf(0).view.getUint32(this.#places[0] + position, true);
    }
    return this.getUint16(position) + this.getUint16(position + 2) * 0x1_0000;
  }

  /**
   * Sets two bytes, little-endian.
   *
   * @throws {RangeError} past the end
   */
  setUint16(position: number, value: number): void {
    if (this.count > 0 && position + 2 <= this.#places[1] && position >= 0) {
      this.#regionOf(0).view.setUint16(this.#places[0] + position, value, true);
      return;
    }
    this.setUint8(position, value);
    this.setUint8(position + 1, value >>> 8);
  }

  /**
   * Sets four bytes, little-endian.
   *
   * @throws {RangeError} past the end
   */
  setUint32(position: number, value: number): void {
    if (this.count > 0 && position + 4 <= this.#places[1] && position >= 0) {
      this.#regionOf(0).view.setUint32(this.#places[0] + position, value, true);
      return;
    }
    this.setUint16(position, value);
    this.setUint16(position + 2, value >>> 16);
  }

  /**
   * Sets three times four bytes from the start, little-endian: a header that is written often.
   *
   * @throws {RangeError} past the end
   */
  setHeader(first: number, second: number, third: number): void {
    if (this.count > 0 && this.#places[1] >= 12) {
      const { view } = this.#regionOf(0);
      const at = this.#places[0];
      view.setUint32(at, first, true);
      view.setUint32(at + 4, second, true);
      view.setUint32(at + 8, third, true);
      return;
    }
    this.setUint32(0, first);
    this.setUint32(4, second);
    this.setUint32(8, third);
  }

  /**
   * Eight bytes, little-endian, as a plain number: above 2^53 it is rounded, and so still larger than any size that this
   * machine can have.
   *
   * @throws {RangeError} past the end
   */
  getUint64(position: number): number {
    return this.getUint32(position) + this.getUint32(position + 4) * TWO_32;
  }

  /**
   * Copies bytes out of guest memory.
   *
   * @param target is filled
   * @param position of the first byte to copy
   * @returns bytes copied: fewer than `target` holds when the list ends before
   */
  copyTo(target: Uint8Array, position = 0): number {
    let done = 0;
    for (let i = this.#find(position); i >= 0 && i < this.count && done < target.length; i++) {
      const from = this.#places[2 * i] + this.#at;
      const length = Math.min(this.#places[2 * i + 1] - this.#at, target.length - done);
      target.set(this.#regionOf(i).bytes.subarray(from, from + length), done);
      done += length;
      this.#at = 0;
    }
    return done;
  }

  /**
   * Copies bytes into guest memory.
   *
   * @param position of the first byte to write
   * @returns bytes copied: fewer than `source` holds when the list ends before
   */
  copyFrom(source: Uint8Array, position = 0): number {
    let done = 0;
    for (let i = this.#find(position); i >= 0 && i < this.count && done < source.length; i++) {
      const length = Math.min(this.#places[2 * i + 1] - this.#at, source.length - done);
      const piece = length === source.length ? source : source.subarray(done, done + length);
      this.#regionOf(i).bytes.set(piece, this.#places[2 * i] + this.#at);
      done += length;
      this.#at = 0;
    }
    return done;
  }

  /**
   * Copies bytes from guest memory to guest memory, of the same guest or another. Those that the target has no room for, or
   * that are not there, are left out.
   *
   * @param at position of the first byte to write
   * @param position of the first byte to copy
   * @param length bytes in all
   */
  copyInto(target: Segments, at: number, position: number, length: number): void {
    // Nearly always both are in one piece.
    const places = this.#places;
    const others = target.#places;
    if (
      this.count > 0 && target.count > 0 && position >= 0 && at >= 0 && position + length <= places[1] &&
      at + length <= others[1]
    ) {
      copyBetween(this.#regionOf(0), places[0] + position, target.#regionOf(0), others[0] + at, length);
      return;
    }
    let from = this.#find(position);
    let to = target.#find(at);
    let left = length;
    while (left > 0 && from >= 0 && to >= 0 && from < this.count && to < target.count) {
      const source = this.#places[2 * from + 1] - this.#at;
      const room = target.#places[2 * to + 1] - target.#at;
      const size = Math.min(left, source, room);
      copyBetween(
        this.#regionOf(from),
        this.#places[2 * from] + this.#at,
        target.#regionOf(to),
        target.#places[2 * to] + target.#at,
        size,
      );
      left -= size;
      this.#at += size;
      target.#at += size;
      if (size === source) {
        from++;
        this.#at = 0;
      }
      if (size === room) {
        to++;
        target.#at = 0;
      }
    }
  }

  /**
   * Views of the guest memory itself, in order, each of one piece or part of one. They go stale (length 0) when the
   * front-end takes the memory away.
   *
   * @param position of the first byte
   * @param length bytes in all
   */
  *views(position = 0, length: number = this.byteLength - position): Generator<Uint8Array<ArrayBuffer>> {
    let left = length;
    let at = 0;
    let i = this.#find(position);
    if (i >= 0) at = this.#at;
    for (; i >= 0 && i < this.count && left > 0; i++) {
      const size = Math.min(this.#places[2 * i + 1] - at, left);
      const from = this.#places[2 * i] + at;
      yield this.#regionOf(i).bytes.subarray(from, from + size);
      left -= size;
      at = 0;
    }
  }

  /** Sets bytes to zero. */
  clearBytes(position: number, length: number): void {
    for (const view of this.views(position, length)) view.fill(0);
  }

  /**
   * Puts bytes into an iovec, by address.
   *
   * @param position of the first byte
   * @param length bytes in all
   * @returns bytes put: fewer than asked when the iovec is full
   */
  toIovec(iovec: Iovec, position: number, length: number): number {
    let done = 0;
    for (let i = this.#find(position); i >= 0 && i < this.count && done < length; i++) {
      if (iovec.full) break;
      const size = Math.min(this.#places[2 * i + 1] - this.#at, length - done);
      iovec.push(this.#regionOf(i).hostAddress + this.#places[2 * i] + this.#at, size);
      done += size;
      this.#at = 0;
    }
    return done;
  }
}
