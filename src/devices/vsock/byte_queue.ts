/**
 * Bytes that wait.
 *
 * @module
 */

import type { Iovec } from "../../../ffi/iovec.ts";
import { Native } from "../../../ffi/native.ts";
import type { Segments } from "../../memory/segments.ts";

/** Bytes that it begins with. */
const FIRST_ROOM = 4096;
/** Bytes of a message that its place in the list of messages is worth: without, empty ones would cost nothing. */
const MESSAGE_COST = 16;

/**
 * A queue of bytes with a limit, and marks where messages end in it. Takes memory only as it fills up, keeps it then, and
 * gives it back when {@link clear}ed.
 */
export class ByteQueue {
  /** The most bytes. */
  readonly capacity: number;
  /** Bytes in it. */
  length = 0;
  /** Bytes after the last mark: of a message that is not complete. */
  open = 0;
  #memory: Native | undefined;
  #room = 0;
  #start = 0;
  /** Length of each complete message, doubled, and 1 more when a record ends with it. */
  #marks: number[] = [];
  /** Marks before this one are gone. */
  #first = 0;

  /** An empty queue. */
  constructor(capacity: number) {
    this.capacity = capacity;
  }

  #grow(wanted: number): Native {
    let room = this.#room === 0 ? Math.min(FIRST_ROOM, this.capacity) : this.#room;
    while (room < wanted) room = Math.min(2 * room, this.capacity);
    const memory = new Native(room);
    const old = this.#memory;
    if (old !== undefined) {
      const head = Math.min(this.length, this.#room - this.#start);
      memory.bytes.set(old.bytes.subarray(this.#start, this.#start + head));
      memory.bytes.set(old.bytes.subarray(0, this.length - head), head);
    }
    this.#start = 0;
    this.#room = room;
    return this.#memory = memory;
  }

  /** Adds bytes from guest memory, for which there must be room below {@link capacity}. */
  append(source: Segments, position: number, length: number): void {
    if (length === 0) return;
    const wanted = this.length + length;
    if (wanted > this.capacity) throw new RangeError(`${wanted} bytes, at most ${this.capacity}`);
    const memory = this.#memory === undefined || wanted > this.#room ? this.#grow(wanted) : this.#memory;
    let at = this.#start + this.length;
    if (at >= this.#room) at -= this.#room;
    const head = Math.min(length, this.#room - at);
    source.copyTo(memory.bytes.subarray(at, at + head), position);
    if (head < length) source.copyTo(memory.bytes.subarray(0, length - head), position + head);
    this.length = wanted;
    this.open += length;
  }

  /** A message ends here. Returns false when there are too many. */
  mark(endOfRecord: boolean): boolean {
    if ((this.#marks.length - this.#first) * MESSAGE_COST >= this.capacity) return false;
    this.#marks.push(this.open * 2 + (endOfRecord ? 1 : 0));
    this.open = 0;
    return true;
  }

  /** Bytes of the first message, or -1 when there is no complete one. */
  get messageLength(): number {
    return this.#first < this.#marks.length ? Math.floor(this.#marks[this.#first] / 2) : -1;
  }

  /** Whether a record ends with the first message. */
  get endsRecord(): boolean {
    return this.#first < this.#marks.length && this.#marks[this.#first] % 2 === 1;
  }

  /** Takes the mark of the first message away: all its bytes are dropped, or `taken` of them. */
  unmark(taken?: number): void {
    if (taken !== undefined) {
      this.#marks[this.#first] -= 2 * taken;
      return;
    }
    this.#first++;
    if (this.#first === this.#marks.length) this.#marks.length = this.#first = 0;
    else if (this.#first >= 1024) this.#marks = this.#marks.slice(this.#first), this.#first = 0;
  }

  /** The first bytes that lie in a row, at most `length`; valid until something is added or dropped. */
  front(length: number): Uint8Array<ArrayBuffer> {
    if (this.#memory === undefined) return new Uint8Array(0);
    const size = Math.min(length, this.length, this.#room - this.#start);
    return this.#memory.bytes.subarray(this.#start, this.#start + size);
  }

  /** A copy of the first bytes. */
  copy(length: number): Uint8Array<ArrayBuffer> {
    const copy = new Uint8Array(Math.min(length, this.length));
    const head = this.front(copy.length);
    copy.set(head);
    if (head.length < copy.length && this.#memory !== undefined) {
      copy.set(this.#memory.bytes.subarray(0, copy.length - head.length), head.length);
    }
    return copy;
  }

  /** Puts the first bytes into an iovec, in one piece or two. */
  toIovec(iovec: Iovec, length: number): void {
    const size = Math.min(length, this.length);
    if (this.#memory === undefined || size === 0) return;
    const head = Math.min(size, this.#room - this.#start);
    const address = Number(this.#memory.address);
    iovec.push(address + this.#start, head);
    if (head < size) iovec.push(address, size - head);
  }

  /** Drops the first bytes. */
  drop(length: number): void {
    this.length -= length;
    this.#start += length;
    if (this.#start >= this.#room) this.#start -= this.#room;
    if (this.length === 0) this.#start = 0;
    // Of what has no mark, which in a stream is all.
    if (this.open > this.length) this.open = this.length;
  }

  /** Empties it, and gives its memory back. */
  clear(): void {
    this.length =
      this.open =
      this.#start =
      this.#room =
      this.#first =
        0;
    this.#memory = undefined;
    this.#marks = [];
  }
}
