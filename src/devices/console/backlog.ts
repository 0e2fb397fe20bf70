/**
 * The last bytes that nobody was there for.
 *
 * @module
 */

import type { Iovec } from "../../../ffi/iovec.ts";
import { Native } from "../../../ffi/native.ts";
import type { OutputData } from "./end.ts";

/** Bytes that are kept. */
export const BACKLOG_SIZE = 65536;

/** Keeps the last bytes that were put in, until somebody takes them. */
export class Backlog {
  readonly #room = new Native(BACKLOG_SIZE);
  #from = 0;
  /** Bytes in it. */
  length = 0;

  /** Puts bytes in, from a position on; the oldest go where there is no room. */
  push(data: Pick<OutputData, "byteLength" | "copyTo">, from: number): void {
    let at = Math.max(from, data.byteLength - BACKLOG_SIZE);
    while (at < data.byteLength) {
      const to = (this.#from + this.length) % BACKLOG_SIZE;
      const piece = this.#room.bytes.subarray(to, Math.min(BACKLOG_SIZE, to + data.byteLength - at));
      const count = data.copyTo(piece, at);
      if (count === 0) return;
      at += count;
      this.length += count;
      const over = this.length - BACKLOG_SIZE;
      if (over > 0) this.take(over);
    }
  }

  /** What is in it, as a copy. */
  bytes(): Uint8Array<ArrayBuffer> {
    const copy = new Uint8Array(this.length);
    const first = Math.min(this.length, BACKLOG_SIZE - this.#from);
    copy.set(this.#room.bytes.subarray(this.#from, this.#from + first));
    copy.set(this.#room.bytes.subarray(0, this.length - first), first);
    return copy;
  }

  /** Puts what is in it into an iovec. */
  toIovec(iovec: Iovec): void {
    const first = Math.min(this.length, BACKLOG_SIZE - this.#from);
    if (first > 0) iovec.push(Number(this.#room.address) + this.#from, first);
    if (this.length > first) iovec.push(Number(this.#room.address), this.length - first);
  }

  /** Takes bytes out, the oldest first. */
  take(count: number): void {
    this.#from = (this.#from + count) % BACKLOG_SIZE;
    this.length -= count;
  }
}
