/**
 * The ring of events for one guest.
 *
 * @module
 */

import type { OwnedQueue, QueueOwner } from "../../backend/device.ts";
import { EVENT_SIZE, EventType, Syn } from "./layout.ts";
import { InputState } from "./state.ts";

/** Events that wait at most, for a guest that does not take them. */
export const BACKLOG = 2048;
/** The most events of a group, with the one that ends it. */
export const MAX_GROUP = 512;

/** Events of one group, up to the one that ends it: the first {@link count}. */
export class EventGroup {
  /** Type in the lower half, code in the upper one, then the value; for each event. */
  readonly words: Int32Array = new Int32Array(2 * MAX_GROUP);
  /** Events. */
  count = 0;

  /** Adds an event, if there is room for it. Returns whether there was. */
  push(type: number, code: number, value: number): boolean {
    if (this.count === MAX_GROUP) return false;
    this.words[2 * this.count] = type | code << 16;
    this.words[2 * this.count + 1] = value;
    this.count++;
    return true;
  }
}

/**
 * Hands events to the driver, in whole groups: one that finds no room is left out as a whole. What stays pressed or where a
 * finger is, is then told when there is room again, so that no lost event leaves a key pressed for ever.
 */
export class EventQueue implements QueueOwner {
  readonly #wanted: InputState;
  readonly #onDrained: () => void;
  /** What the driver knows once it has read what waits. */
  readonly #told = new InputState();
  readonly #waiting = new Int32Array(2 * BACKLOG);
  #from = 0;
  #count = 0;
  /** Whether the driver does not know everything. */
  #behind = true;
  #queue: OwnedQueue | undefined;
  /** Whether there is a driver; its ring may stand still for a while. */
  #driven = false;

  /**
   * A queue whose ring does not run.
   *
   * @param wanted how things are
   * @param onDrained called when nothing waits any more
   */
  constructor(wanted: InputState, onDrained: () => void) {
    this.#wanted = wanted;
    this.#onDrained = onDrained;
  }

  /** Whether the driver has been given everything, or is not there. */
  get drained(): boolean {
    return !this.#driven || (this.#count === 0 && !this.#behind);
  }

  /** Takes a group: for the driver now, or for later. */
  offer(group: EventGroup): void {
    if (!this.#driven || this.#behind || !this.#enqueue(group)) this.#behind = true;
    else if (this.#queue !== undefined) this.#flush(this.#queue);
  }

  #enqueue({ words, count }: EventGroup): boolean {
    if (this.#count + count > BACKLOG) return false;
    for (let i = 0; i < count; i++) {
      const word = words[2 * i];
      const value = words[2 * i + 1];
      this.#told.apply(word & 0xffff, word >>> 16, value);
      const at = (this.#from + this.#count++) % BACKLOG;
      this.#waiting[2 * at] = word;
      this.#waiting[2 * at + 1] = value;
    }
    return true;
  }

  /** {@link QueueOwner.start}. */
  start(queue: OwnedQueue): void {
    this.#queue = queue;
    this.#driven = true;
    if (this.#count === 0) this.#catchUp();
  }

  /** {@link QueueOwner.work}. */
  work(queue: OwnedQueue): void {
    this.#flush(queue);
  }

  /** {@link QueueOwner.stop}. What waits, waits on. */
  stop(): void {
    this.#queue = undefined;
  }

  /** A driver begins anew: it knows nothing. */
  reset(): void {
    this.#from = this.#count = 0;
    this.#told.clear();
    this.#driven = false;
    this.#behind = true;
    this.#onDrained();
  }

  #flush(queue: OwnedQueue): void {
    do {
      while (this.#count > 0) {
        const chain = queue.take();
        if (chain === null) return;
        const { writable } = chain;
        if (writable.byteLength >= EVENT_SIZE) {
          writable.setUint32(0, this.#waiting[2 * this.#from]);
          writable.setUint32(4, this.#waiting[2 * this.#from + 1]);
          chain.written = EVENT_SIZE;
          this.#from = (this.#from + 1) % BACKLOG;
          this.#count--;
        }
        // A buffer that is too small for an event comes back empty.
        queue.complete(chain);
      }
    } while (this.#catchUp());
    this.#onDrained();
  }

  /** Tells the driver what it has missed. Returns whether there was anything. */
  #catchUp(): boolean {
    if (!this.#behind) return false;
    this.#behind = false;
    const group = new EventGroup();
    // More than a group holds, and the rest comes in the next.
    this.#wanted.differences(this.#told, (type, code, value) => {
      if (group.count === MAX_GROUP - 1) this.#behind = true;
      else group.push(type, code, value);
    });
    if (group.count === 0) return false;
    group.push(EventType.SYN, Syn.REPORT, 0);
    return this.#enqueue(group);
  }
}
