/**
 * Memory of this process that a storage can read into and write from as if it were a guest's.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import { memoryFile } from "../../../ffi/mapping.ts";
import { Region } from "../../memory/region.ts";
import { Segments } from "../../memory/segments.ts";
import { Span } from "../../memory/span.ts";

/** Room for a piece of what a command works on. Made for one command, and only for those that are rare. */
export class Bounce {
  /** Bytes. */
  readonly size = 65536;
  readonly #region: Region;
  readonly #segments = new Segments();
  readonly #span = new Span();

  /** @throws {OsError} */
  constructor() {
    const fd = memoryFile("vhost-user-scsi", this.size);
    try {
      this.#region = new Region({ guestAddress: 0, size: this.size, userAddress: 0, mmapOffset: 0 }, fd);
    } finally {
      close(fd);
    }
    this.#segments.push(this.#region, 0, this.size);
  }

  /** The first bytes, for a storage. */
  span(length: number): Span {
    return this.#span.set(this.#segments, 0, length);
  }

  /** Whether the first bytes are these. */
  equals(bytes: Uint8Array, length: number): boolean {
    const mine = this.#region.bytes;
    for (let i = 0; i < length; i++) if (mine[i] !== bytes[i]) return false;
    return true;
  }

  /** Puts a block there as often as there is room. */
  fill(block: Uint8Array): void {
    for (let at = 0; at < this.size; at += block.length) this.#region.bytes.set(block, at);
  }

  /** Gives the memory back. */
  close(): void {
    this.#region.retire();
  }
}
