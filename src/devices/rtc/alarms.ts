/**
 * Alarms and the ring that tells of them.
 *
 * @module
 */

import type { OwnedQueue, QueueOwner } from "../../backend/device.ts";
import type { RtcClock } from "./clock.ts";
import { NOTIFICATION_SIZE, RtcMessage } from "./layout.ts";

/** How long to sleep at most, ms: a clock may be set meanwhile. */
const LOOK_AGAIN = 1000;

/** One clock's alarm. */
interface Alarm {
  time: bigint;
  enabled: boolean;
  /** Whether the clock was seen before the time: only from there it can come to it. */
  before: boolean;
  /** Whether the driver is still to be told. */
  due: boolean;
}

/** The alarms of all clocks. */
export class RtcAlarms implements QueueOwner {
  readonly #clocks: readonly RtcClock[];
  readonly #alarms: readonly Alarm[];
  readonly #unwatch: readonly (() => void)[];
  readonly #onError: (error: unknown) => void;
  #queue: OwnedQueue | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** None is set. */
  constructor(clocks: readonly RtcClock[], onError: (error: unknown) => void) {
    this.#clocks = clocks;
    this.#onError = onError;
    this.#alarms = clocks.map(() => ({ time: 0n, enabled: false, before: false, due: false }));
    this.#unwatch = clocks.flatMap((clock) => clock.watch?.(() => this.#look()) ?? []);
  }

  /** A clock's alarm. */
  get(clock: number): { readonly time: bigint; readonly enabled: boolean } {
    return this.#alarms[clock];
  }

  /** Sets a clock's alarm. One that is not in the future goes off at once. */
  set(clock: number, time: bigint, enabled: boolean): void {
    const alarm = this.#alarms[clock];
    alarm.time = time;
    alarm.enabled = enabled;
    alarm.due = false;
    alarm.before = true;
    this.#look();
  }

  /** No alarm is set any more. */
  clear(): void {
    for (const alarm of this.#alarms) {
      alarm.time = 0n;
      alarm.enabled = alarm.before = alarm.due = false;
    }
    this.#look();
  }

  /** Stops for good. */
  close(): void {
    this.clear();
    for (const unwatch of this.#unwatch) unwatch();
  }

  /** Sees which have gone off, and when to look again. */
  #look(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    let next = Infinity;
    for (let i = 0; i < this.#alarms.length; i++) {
      const alarm = this.#alarms[i];
      if (!alarm.enabled) continue;
      next = Math.min(next, LOOK_AGAIN);
      try {
        const left = alarm.time - this.#clocks[i].read();
        if (left > 0n) {
          alarm.before = true;
          alarm.due = false;
          next = Math.min(next, Math.ceil(Number(left) / 1e6));
        } else if (alarm.before) {
          alarm.before = false;
          alarm.due = true;
        }
      } catch (error) {
        this.#onError(error);
      }
    }
    if (next < Infinity) this.#timer = setTimeout(() => this.#look(), next);
    this.#tell();
  }

  /** Tells the driver, as far as it has buffers. */
  #tell(): void {
    const queue = this.#queue;
    if (queue === undefined) return;
    for (let i = 0; i < this.#alarms.length; i++) {
      const alarm = this.#alarms[i];
      while (alarm.due) {
        const chain = queue.take();
        if (chain === null) return;
        const { writable } = chain;
        // One without room says nothing.
        if (writable.byteLength >= NOTIFICATION_SIZE) {
          writable.clearBytes(0, NOTIFICATION_SIZE);
          writable.setUint16(0, RtcMessage.NOTIF_ALARM);
          writable.setUint16(8, i);
          chain.written = NOTIFICATION_SIZE;
          alarm.due = false;
        }
        queue.complete(chain);
      }
    }
  }

  /** {@link QueueOwner.start}. */
  start(queue: OwnedQueue): void {
    this.#queue = queue;
  }

  /** {@link QueueOwner.work}. */
  work(): void {
    this.#tell();
  }

  /** {@link QueueOwner.stop}. */
  stop(): void {
    this.#queue = undefined;
  }
}
