/**
 * A ring with its two doorbells: requests as promises.
 *
 * @module
 */

import { consume, eventfd, signal } from "../../ffi/eventfd.ts";
import { close } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import type { Buffer, DriverRing } from "./driver_ring.ts";

interface Waiting {
  resolve(written: number): void;
  reject(error: unknown): void;
}

/** A running ring of a front-end. */
export class DriverQueue {
  /** Number of the ring in the device. */
  readonly index: number;
  /** The ring. */
  readonly ring: DriverRing;
  /** Rings at the device. */
  readonly kick: number = eventfd();
  /** Rings here. */
  readonly call: number = eventfd();
  /** Rings when the device finds the ring broken. */
  readonly error: number = eventfd();
  readonly #reactor: Reactor;
  readonly #waiting = new Map<number, Waiting>();
  readonly #queued: (() => void)[] = [];
  #closed: Error | undefined;

  /** Starts watching for answers; the device must be told of the descriptors. */
  constructor(index: number, ring: DriverRing, reactor: Reactor) {
    this.index = index;
    this.ring = ring;
    this.#reactor = reactor;
    reactor.watch(this.call, () => {
      consume(this.call);
      this.collect();
    });
    reactor.watch(this.error, () => {
      consume(this.error);
      this.#fail(new Error(`the device found ring ${this.index} broken`));
    });
    ring.arm();
  }

  /** Requests that the device has not returned yet. */
  get inFlight(): number {
    return this.#waiting.size;
  }

  /**
   * Hands a request to the device; waits for room in the ring first.
   *
   * @returns bytes that the device says it wrote
   * @throws {Error} when the ring breaks or the connection ends before the device has returned it
   */
  async request(readable: readonly Buffer[], writable: readonly Buffer[]): Promise<number> {
    for (;;) {
      if (this.#closed !== undefined) throw this.#closed;
      const head = this.ring.add(readable, writable);
      if (head >= 0) {
        if (this.ring.publish()) signal(this.kick);
        return await new Promise((resolve, reject) => this.#waiting.set(head, { resolve, reject }));
      }
      await new Promise<void>((resolve) => this.#queued.push(resolve));
    }
  }

  /** Takes what the device has returned. Called by itself when it rings; call it to look earlier. Returns how many. */
  collect(): number {
    let count = 0;
    try {
      do {
        for (let used = this.ring.take(); used !== null; used = this.ring.take()) {
          count++;
          const waiting = this.#waiting.get(used.head);
          this.#waiting.delete(used.head);
          waiting?.resolve(used.written);
        }
      } while (this.ring.arm());
    } catch (error) {
      this.#fail(error as Error);
    }
    if (count > 0) { for (const wake of this.#queued.splice(0)) wake(); }
    return count;
  }

  #fail(error: Error): void {
    this.#closed = error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    for (const wake of this.#queued.splice(0)) wake();
  }

  /** Closes the doorbells; requests in flight fail. */
  close(reason: Error = new Error(`ring ${this.index} is closed`)): void {
    if (!this.#closed) this.#fail(reason);
    for (const fd of [this.call, this.error]) this.#reactor.unwatch(fd);
    for (const fd of [this.kick, this.call, this.error]) close(fd);
  }
}
