/**
 * In-flight tracking of a split ring (vhost-user, "Inflight I/O tracking": queue region for split virtqueue).
 *
 * @module
 */

import { InflightLayout, type InflightRegion, InflightViews, inOrderOf, wrongInflight } from "./inflight.ts";

const { header, entry } = InflightLayout.split;

// Fields of the header as places in 16-bit words, and of an entry as its byte offset.
const LAST_BATCH_HEAD = 6;
const USED_IDX = 7;
const NEXT = 6;

/** First byte of the entry of a request, which is named by its first descriptor. */
function entryOf(head: number): number {
  return header + entry * head;
}

/** The record of the requests that are in flight in a split ring. */
export class InflightSplit {
  /** Whether a device was here before: then it is known from here which request comes next. */
  readonly recovered: boolean;
  readonly #views: InflightViews;
  /** Requests to take again: their heads, the first taken first. */
  readonly #lost: readonly number[];
  #lostAt = 0;
  /** Of these, the heads of those that are in flight again. */
  readonly #retaken = new Set<number>();
  #counter = 0;
  /** The last batch, as far as it was returned: linked by head, the last one first. */
  readonly #next: Uint16Array;
  #last = 0;
  #batch = 0;

  /**
   * Takes over what a device left behind, or makes a new record.
   *
   * @param size entries of the ring
   * @param used the ring's used index
   * @throws {RingError} when what is there makes no sense
   */
  constructor(region: InflightRegion, size: number, used: number) {
    this.#views = InflightViews.of(region, false, size);
    this.#next = new Uint16Array(size);
    const copy = this.#views.copy();
    this.recovered = copy.used;
    this.#lost = copy.used ? this.#recover(copy, size, used) : [];
    if (!copy.used) this.#views.initialize(size, () => this.#views.halves[USED_IDX] = used);
  }

  /** What was in flight when the last device died, the first taken first. */
  #recover(copy: InflightViews, size: number, used: number): readonly number[] {
    const entries = copy.check(false, size);
    const shown = this.#shown(copy, size, used);
    const lost: number[] = [];
    for (let head = 0; head < entries; head++) {
      if (!copy.inflight(head, entryOf(head)) || shown.has(head)) continue;
      if (head >= size) wrongInflight(`entry ${head}`, `free, in a ring of ${size}`, "in flight");
      lost.push(head);
    }
    const { sorted, next } = inOrderOf(lost, (head) => copy.counter(head, entryOf(head)));
    this.#counter = next;
    // Only now that all was checked. Who dies in between leaves the same to do.
    for (const head of shown) Atomics.store(this.#views.bytes, entryOf(head), 0);
    Atomics.store(this.#views.halves, USED_IDX, used);
    return sorted;
  }

  /** The batch that was shown to the driver, but not yet struck off here. */
  #shown(copy: InflightViews, size: number, used: number): ReadonlySet<number> {
    const recorded = copy.halves[USED_IDX];
    const count = (used - recorded) & 0xffff;
    const heads = new Set<number>();
    if (count > size) {
      wrongInflight("used_idx", `at most ${size} behind the ring's used index ${used}`, recorded);
    }
    let field = "last_batch_head";
    let head = copy.halves[LAST_BATCH_HEAD];
    for (let i = 0; i < count; i++) {
      if (head >= size) wrongInflight(field, `below ${size}`, head);
      if (heads.has(head)) wrongInflight(field, `an entry that is not in the batch yet`, head);
      heads.add(head);
      field = `next of entry ${head}`;
      head = copy.halves[(entryOf(head) + NEXT) / 2];
    }
    return heads;
  }

  /** Requests that are still to be taken again. */
  get left(): number {
    return this.#lost.length - this.#lostAt;
  }

  /** Whether there are any, or any that were taken again and not returned since. */
  get lost(): boolean {
    return this.left > 0 || this.#retaken.size > 0;
  }

  /** The first of them. */
  get first(): number {
    return this.#lost[this.#lostAt];
  }

  /** It was taken. */
  retake(): void {
    this.#retaken.add(this.#lost[this.#lostAt++]);
  }

  /** A request was taken from the ring. */
  take(head: number): void {
    this.#views.setCounter(entryOf(head), this.#counter++);
    Atomics.store(this.#views.bytes, entryOf(head), 1);
  }

  /**
   * The request that was taken last is available again: the driver has never seen that it was taken. The last, or who goes on
   * after a death in between would take the wrong ones for new.
   */
  untake(head: number): void {
    Atomics.store(this.#views.bytes, entryOf(head), 0);
  }

  /** A request is about to be returned. */
  return(head: number): void {
    if (this.#retaken.size > 0) this.#retaken.delete(head);
    this.#views.halves[(entryOf(head) + NEXT) / 2] = this.#last;
    this.#next[head] = this.#last;
    this.#last = head;
    this.#batch++;
  }

  /** The requests that were returned are about to be shown to the driver. */
  prepare(): void {
    Atomics.store(this.#views.halves, LAST_BATCH_HEAD, this.#last);
  }

  /** They were shown: the used index has a new value. */
  commit(used: number): void {
    for (let head = this.#last; this.#batch > 0; this.#batch--, head = this.#next[head]) {
      Atomics.store(this.#views.bytes, entryOf(head), 0);
    }
    Atomics.store(this.#views.halves, USED_IDX, used);
  }
}
