/**
 * A ring with its two doorbells: requests as promises.
 *
 * @module
 */

import { consume, eventfd, signal } from "../../ffi/eventfd.ts";
import { close } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import type { Endianness } from "../protocol/struct.ts";
import type { Buffer, DriverRing } from "./driver_ring.ts";
import type { GuestRing } from "./guest_ring.ts";
import type { Piece } from "./shared_memory.ts";

interface Waiting {
  readonly readable: readonly Buffer[];
  readonly writable: readonly Buffer[];
  resolve(written: number): void;
  reject(error: unknown): void;
}

/** How a queue behaves. */
export interface DriverQueueOptions {
  /**
   * Whether requests may be carried out twice: when a back-end dies and nobody has recorded what it had taken, they are
   * given to the next one again instead of failing.
   */
  readonly resubmit?: boolean;
  /** Byte order of the ring; little-endian by default. */
  readonly endianness?: Endianness;
  /** Kicks by a message, instead of a descriptor (INBAND_NOTIFICATIONS). */
  readonly kickInBand?: () => void;
}

/** Requests that a back-end had when it died, where nobody can tell which of them it has carried out. */
export class LostRequestError extends Error {
  /** The error's class name. */
  override readonly name = "LostRequestError";

  /** Names the ring. */
  constructor(index: number) {
    super(
      `ring ${index}: the back-end died with this request, which may have been carried out or not ` +
        "(no in-flight buffer was negotiated, and the queue may not submit it again)",
    );
  }
}

/** A running ring of a front-end. */
export class DriverQueue implements GuestRing {
  /** Number of the ring in the device. */
  readonly index: number;
  /** Byte order of the ring. */
  readonly endianness: Endianness;
  /** The ring. */
  readonly ring: DriverRing;
  /** Rings at the device; -1 when that is done by messages. */
  readonly kick: number;
  /** Rings here; -1 when that is done by messages. */
  readonly call: number;
  /** Rings when the device finds the ring broken; -1 when that is done by messages. */
  readonly error: number;
  readonly #reactor: Reactor;
  readonly #options: DriverQueueOptions;
  readonly #waiting = new Map<number, Waiting>();
  readonly #queued: (() => void)[] = [];
  #failed: Error | undefined;
  #closed = false;

  /** Starts watching for answers; the device must be told of the descriptors. */
  constructor(index: number, ring: DriverRing, reactor: Reactor, options: DriverQueueOptions = {}) {
    this.index = index;
    this.ring = ring;
    this.endianness = options.endianness ?? "little";
    this.#reactor = reactor;
    this.#options = options;
    const doorbell = (): number => options.kickInBand === undefined ? eventfd() : -1;
    this.kick = doorbell();
    this.call = doorbell();
    this.error = doorbell();
    if (this.call >= 0) {
      reactor.watch(this.call, () => {
        consume(this.call);
        this.collect();
      });
      reactor.watch(this.error, () => {
        consume(this.error);
        this.broken();
      });
    }
    ring.arm();
  }

  /** Entries. */
  get size(): number {
    return this.ring.size;
  }

  /** Where the descriptor area is. */
  get descriptor(): Piece {
    return this.ring.descriptor;
  }

  /** Where the available area is. */
  get available(): Piece {
    return this.ring.available;
  }

  /** Where the used area is. */
  get used(): Piece {
    return this.ring.used;
  }

  /** The position from which a device goes on that has nothing of the ring yet. */
  get base(): number {
    return this.ring.base;
  }

  /** Requests that the device has not returned yet. */
  get inFlight(): number {
    return this.#waiting.size;
  }

  /**
   * Hands a request to the device; waits for room in the ring first. The lists are looked at until it is back.
   *
   * @returns bytes that the device says it wrote
   * @throws {LostRequestError} when the back-end dies with it, see {@link DriverQueueOptions.resubmit}
   * @throws {Error} when the ring breaks or the connection ends for good before the device has returned it
   */
  async request(readable: readonly Buffer[], writable: readonly Buffer[]): Promise<number> {
    for (;;) {
      if (this.#failed !== undefined) throw this.#failed;
      const head = this.ring.add(readable, writable);
      if (head >= 0) {
        if (this.ring.publish()) this.#ringUp();
        return await new Promise((resolve, reject) =>
          this.#waiting.set(head, { readable, writable, resolve, reject })
        );
      }
      await new Promise<void>((resolve) => this.#queued.push(resolve));
    }
  }

  /** Device and driver are up. Each may have missed what the other has told before. */
  connected(): void {
    this.collect();
    this.#ringUp();
  }

  #ringUp(): void {
    if (this.kick >= 0) signal(this.kick);
    else this.#options.kickInBand?.();
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
      this.fail(error as Error);
    }
    if (count > 0) this.#wake();
    return count;
  }

  #wake(): void {
    for (const wake of this.#queued.splice(0)) wake();
  }

  /** The device says by a message that it has returned something. */
  called(): void {
    this.collect();
  }

  /** The device says that it finds the ring broken. */
  broken(): void {
    this.fail(new Error(`the device found ring ${this.index} broken`));
  }

  /**
   * Takes what a back-end that is gone has returned. What it has not, the next one finds in the in-flight buffer; where
   * nobody has recorded it, the ring starts anew, and the requests are in it again or fail.
   */
  resume(recorded: boolean): boolean {
    if (this.#failed === undefined) this.collect();
    if (this.#failed !== undefined) return false;
    if (!recorded) this.#startAnew();
    return true;
  }

  #startAnew(): void {
    const lost = [...this.#waiting.values()];
    this.#waiting.clear();
    this.ring.reset();
    if (this.#options.resubmit === true) {
      for (const each of lost) this.#waiting.set(this.ring.add(each.readable, each.writable), each);
      this.ring.publish();
    } else {
      for (const { reject } of lost) reject(new LostRequestError(this.index));
    }
    this.ring.arm();
    this.#wake();
  }

  /** Ends it: requests in flight fail, and those to come. */
  fail(error: Error): void {
    this.#failed ??= error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    this.#wake();
  }

  /** Closes the doorbells; requests in flight fail. */
  close(reason: Error = new Error(`ring ${this.index} is closed`)): void {
    if (this.#closed) return;
    this.#closed = true;
    this.fail(reason);
    if (this.call < 0) return;
    for (const fd of [this.call, this.error]) this.#reactor.unwatch(fd);
    for (const fd of [this.kick, this.call, this.error]) close(fd);
  }
}
