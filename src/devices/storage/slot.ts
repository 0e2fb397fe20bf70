/**
 * Room for a chunk in memory.
 *
 * @module
 */

/** A chunk in memory, or about to be. */
export class Slot {
  /** Which chunk it is. */
  index = -1;
  /** The bytes of the chunk: fewer than there is room for when it is the last. */
  data: Uint8Array<ArrayBuffer>;
  /** Whether these are the bytes of the chunk. */
  valid = false;
  /** Requests that use it: it stays as long as there are any. */
  users = 0;
  /** Whether it was used since somebody looked for room. */
  recent = false;
  /** What the store does not have yet: bytes `from` up to `to`, none when `to` is 0. */
  from = 0;
  to = 0;
  /** Being read from the store. */
  loading: Promise<void> | undefined;
  /** To be written to the store soon: whoever changes it until then is served by the same. */
  saving: Promise<void> | undefined;
  /** Being written or erased in the store: it must not change. */
  busy: Promise<void> | undefined;
  readonly #room: Uint8Array<ArrayBuffer>;

  /** Room for chunks of so many bytes. */
  constructor(byteLength: number) {
    this.data = this.#room = new Uint8Array(byteLength);
  }

  /** Whether it can be used for another chunk. */
  get free(): boolean {
    return this.users === 0 && this.to === 0 && this.loading === undefined && this.saving === undefined &&
      this.busy === undefined;
  }

  /** Becomes room for another chunk. */
  assign(index: number, byteLength: number): void {
    this.index = index;
    this.data = byteLength === this.#room.length ? this.#room : this.#room.subarray(0, byteLength);
    this.valid = false;
  }

  /** Notes that the store does not have some bytes. */
  mark(from: number, to: number): void {
    if (this.to === 0) {
      this.from = from;
      this.to = to;
    } else {
      this.from = Math.min(this.from, from);
      this.to = Math.max(this.to, to);
    }
  }
}
