/**
 * Which pages of guest memory a device has written, for live migration.
 *
 * @module
 */

/** Bytes of guest memory that one bit of the log stands for. */
export const LOG_PAGE = 4096;

/**
 * The log that a front-end shares with SET_LOG_BASE: one bit for each {@link LOG_PAGE} bytes of guest memory from address 0
 * on, the lowest bit of a byte first. The front-end takes bits out while we put them in, so each byte is changed as a whole.
 *
 * A mark comes after the write that it tells of: one that came before could be taken out, and the page be copied, too early.
 */
export class DirtyLog {
  /** Whether there was a mark since this was last set to false: for who signals the descriptor of SET_LOG_FD. */
  dirty = false;
  readonly #bytes: Uint8Array<ArrayBuffer>;

  /** A log in shared memory, which stays the caller's. Once that is unmapped, marks are dropped. */
  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.#bytes = bytes;
  }

  /**
   * Marks the pages of a range as written. What the log has no bits for is dropped: the front-end has to know how large a
   * log it needs.
   *
   * @param guestAddress of the first byte
   * @param length bytes
   */
  mark(guestAddress: number, length: number): void {
    if (length <= 0) return;
    const bytes = this.#bytes;
    const end = Math.min(Math.floor((guestAddress + length - 1) / LOG_PAGE) + 1, bytes.length * 8);
    let page = Math.floor(guestAddress / LOG_PAGE);
    while (page < end) {
      const at = Math.floor(page / 8);
      const until = Math.min(8, end - at * 8);
      // Also where the bit is set already: only a write keeps our stores before what the front-end reads next.
      Atomics.or(bytes, at, (0xff << page % 8) & (0xff >> 8 - until));
      page = (at + 1) * 8;
      this.dirty = true;
    }
  }
}
