/**
 * A frame on its way out of a guest.
 *
 * @module
 */

import type { Iovec } from "../../../ffi/iovec.ts";
import { Segments } from "../../memory/segments.ts";
import { GsoType, NET_HEADER_SIZE, NetHeaderFlag } from "./layout.ts";

const NOT_READ = -1;

/**
 * An Ethernet frame in guest memory, with what the driver says in the header before it. One object serves all frames of a
 * ring: it is valid until the function returns that it was given to. The guest can change the bytes at any time, so read once,
 * check that, use that; each of the header's fields is read once, when it is asked for.
 */
export class Frame {
  /** Bytes of the frame, without the header. */
  byteLength = 0;
  /** Fields of the header, {@link NOT_READ} until they are asked for. */
  #head = NOT_READ;
  #middle = NOT_READ;
  #checksumOffset = NOT_READ;
  #segments: Segments = new Segments();
  #start = 0;

  /**
   * Points at a chain: header, then frame.
   *
   * @param headerSize bytes of the header, which the chain must have
   */
  set(segments: Segments, headerSize: number = NET_HEADER_SIZE): this {
    this.#segments = segments;
    this.#start = headerSize;
    this.byteLength = segments.byteLength - headerSize;
    this.#head = this.#middle = this.#checksumOffset = NOT_READ;
    return this;
  }

  /** Whether somebody has looked at the header of the frame that it points at. */
  get wasRead(): boolean {
    return this.#head !== NOT_READ;
  }

  /** The header's first four bytes: flags, gso_type, hdr_len. */
  get head(): number {
    if (this.#head === NOT_READ) this.#head = this.#segments.getUint32(0);
    return this.#head;
  }

  /** The next four: gso_size, csum_start. */
  get middle(): number {
    if (this.#middle === NOT_READ) this.#middle = this.#segments.getUint32(4);
    return this.#middle;
  }

  /** Where in the checksummed part the checksum goes (csum_offset). */
  get checksumOffset(): number {
    if (this.#checksumOffset === NOT_READ) this.#checksumOffset = this.#segments.getUint16(8);
    return this.#checksumOffset;
  }

  /** Bits of {@link NetHeaderFlag}. */
  get flags(): number {
    return this.head & 0xff;
  }

  /** One of {@link GsoType}: how the frame is to be cut into smaller ones. */
  get gsoType(): number {
    return this.head >>> 8 & 0xff;
  }

  /** Bytes of all headers of a frame that is to be cut (hdr_len); a hint. */
  get headerLength(): number {
    return this.head >>> 16;
  }

  /** Bytes of payload in each of the pieces (gso_size). */
  get gsoSize(): number {
    return this.middle & 0xffff;
  }

  /** Where the checksummed part starts, bytes from the start of the frame (csum_start). */
  get checksumStart(): number {
    return this.middle >>> 16;
  }

  /** Whether the checksum is still to be computed. */
  get needsChecksum(): boolean {
    return (this.head & NetHeaderFlag.NEEDS_CSUM) !== 0;
  }

  /** Whether the frame is to be cut into smaller ones. */
  get needsSegmentation(): boolean {
    return (this.head >>> 8 & 0xff) !== GsoType.NONE;
  }

  /**
   * The byte at a position.
   *
   * @throws {RangeError} past the end
   */
  getUint8(position: number): number {
    return this.#segments.getUint8(this.#start + position);
  }

  /**
   * Two bytes in network order.
   *
   * @throws {RangeError} past the end
   */
  getUint16(position: number): number {
    const value = this.#segments.getUint16(this.#start + position);
    return (value & 0xff) << 8 | value >>> 8;
  }

  /**
   * Four bytes in the order of this machine, for comparing.
   *
   * @throws {RangeError} past the end
   */
  getUint32(position: number): number {
    return this.#segments.getUint32(this.#start + position);
  }

  /** Copies bytes, from a position on. Returns how many there were. */
  copyTo(target: Uint8Array, position = 0): number {
    const left = this.byteLength - position;
    const part = target.length > left ? target.subarray(0, Math.max(0, left)) : target;
    return this.#segments.copyTo(part, this.#start + position);
  }

  /** Copies bytes from guest memory to guest memory, of this guest or another. */
  copyInto(target: Segments, at: number, position = 0, length: number = this.byteLength - position): void {
    this.#segments.copyInto(target, at, this.#start + position, length);
  }

  /** A copy of the whole frame. */
  bytes(): Uint8Array<ArrayBuffer> {
    const copy = new Uint8Array(this.byteLength);
    this.copyTo(copy);
    return copy;
  }

  /** Puts the frame into an iovec, by address. Returns the bytes put: fewer than there are when the iovec is full. */
  toIovec(iovec: Iovec): number {
    return this.#segments.toIovec(iovec, this.#start, this.byteLength);
  }
}
