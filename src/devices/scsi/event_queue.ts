/**
 * The event queue: what the host tells its driver.
 *
 * @module
 */

import type { OwnedQueue, QueueOwner } from "../../backend/device.ts";
import { shortLun } from "./lun.ts";
import { EVENT_SIZE, EVENTS_MISSED, ScsiEvent } from "./layout.ts";

/** Puts events into the buffers that the driver has put up. One that finds none is not kept, but that is told. */
export class EventQueue implements QueueOwner {
  #queue: OwnedQueue | undefined;
  #missed = false;

  /** {@link QueueOwner.start}. */
  start(queue: OwnedQueue): void {
    this.#queue = queue;
  }

  /** {@link QueueOwner.work}: there are buffers again. */
  work(): void {
    if (this.#missed) this.send(ScsiEvent.NO_EVENT, -1, 0);
  }

  /** {@link QueueOwner.stop}. */
  stop(): void {
    this.#queue = undefined;
  }

  /** Another driver has missed nothing. */
  reset(): void {
    this.#missed = false;
  }

  /**
   * Tells.
   *
   * @param lun the unit that it is about; -1 for none
   */
  send(event: number, lun: number, reason: number): void {
    const chain = this.#queue?.take() ?? null;
    if (chain === null || this.#queue === undefined) {
      this.#missed = true;
      return;
    }
    if (chain.writable.byteLength < EVENT_SIZE) {
      // Nothing is written, so the driver sees no event; it has missed this one.
      this.#missed = true;
      return this.#queue.complete(chain);
    }
    const { writable } = chain;
    writable.setUint32(0, this.#missed ? event + EVENTS_MISSED : event);
    writable.copyFrom(lun < 0 ? new Uint8Array(8) : lunBytes(lun), 4);
    writable.setUint32(12, reason);
    this.#missed = false;
    chain.written = EVENT_SIZE;
    this.#queue.complete(chain);
    this.#queue.publish();
  }
}

/** The address of a unit of target 0. Linux looks for the number in the form that REPORT LUNS has. */
function lunBytes(lun: number): Uint8Array {
  const form = shortLun(lun);
  return Uint8Array.of(1, 0, form >> 8, form & 0xff, 0, 0, 0, 0);
}
