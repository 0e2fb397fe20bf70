/**
 * The rings of a front-end that are started, and the buffer that records what is in flight in them.
 *
 * @module
 */

import type { GuestRing } from "./guest_ring.ts";
import { RecordedInflight } from "./recorded_inflight.ts";
import { startRing, stopRing } from "./ring_start.ts";
import type { FrontEndSession } from "./session.ts";

/** Rings by number, and how a session is told of them. */
export class RingTable {
  readonly #rings = new Map<number, GuestRing>();
  /** Where the rings stand by the buffer, as far as it was used with them: known when they are stopped. */
  readonly #recorded = new Map<number, number | undefined>();
  #inflight: RecordedInflight | undefined;

  /** A ring that is started. */
  get(index: number): GuestRing | undefined {
    return this.#rings.get(index);
  }

  /** Has requests in flight recorded from here on. */
  async record(session: FrontEndSession, numQueues: number, queueSize: number): Promise<void> {
    await this.#replaceInflight(session, await RecordedInflight.make(session, numQueues, queueSize));
  }

  async #replaceInflight(session: FrontEndSession, inflight: RecordedInflight): Promise<void> {
    this.#inflight?.close();
    this.#inflight = inflight;
    this.#recorded.clear();
    await inflight.give(session);
  }

  /** The buffer knows where a ring was stopped; for one that starts anew there must be another. */
  async prepare(session: FrontEndSession, { index, base }: GuestRing): Promise<void> {
    if (this.#rings.has(index)) throw new Error(`ring ${index} is started already`);
    if (this.#inflight === undefined || !this.#recorded.has(index)) return;
    if (this.#recorded.get(index) === base) return;
    if (this.#rings.size > 0) {
      throw new Error(`ring ${index} was used before: stop the other rings, so that records can start anew`);
    }
    await this.#replaceInflight(session, await this.#inflight.renew(session));
  }

  #isRecorded({ index, size }: GuestRing): boolean {
    return this.#inflight?.covers(index, size) ?? false;
  }

  /** Starts a ring, after {@link prepare}. */
  async start(session: FrontEndSession, ring: GuestRing): Promise<void> {
    this.#rings.set(ring.index, ring);
    if (this.#isRecorded(ring)) this.#recorded.set(ring.index, undefined);
    try {
      await startRing(session, ring);
    } catch (error) {
      // What the back-end has refused is not started; what was cut off is, as soon as there is another.
      if (!session.ended) this.#rings.delete(ring.index);
      throw error;
    }
  }

  /** Stops a ring. Returns the position from which it would go on. */
  async stop(session: FrontEndSession, index: number): Promise<number> {
    const base = await stopRing(session, index);
    this.#rings.delete(index);
    if (this.#recorded.has(index)) this.#recorded.set(index, base);
    return base;
  }

  /** Tells a new session everything. */
  async replay(session: FrontEndSession): Promise<void> {
    await this.#inflight?.give(session);
    for (const ring of this.#rings.values()) {
      if (ring.resume?.(this.#isRecorded(ring)) !== false) await startRing(session, ring);
    }
  }

  /** Device and driver are up: what was added or returned meanwhile may not have been heard of. */
  connected(): void {
    for (const ring of this.#rings.values()) ring.connected?.();
  }

  /** Nobody works on the rings any more. */
  end(reason: Error): void {
    for (const ring of this.#rings.values()) ring.close?.(reason);
    this.#rings.clear();
  }

  /** The same for good. */
  close(reason: Error): void {
    this.end(reason);
    this.#inflight?.close();
    this.#inflight = undefined;
  }
}
