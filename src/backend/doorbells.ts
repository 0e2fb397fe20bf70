/**
 * The descriptors of a ring: by which the driver rings here, and we ring there.
 *
 * @module
 */

import { EpollEvent } from "../../ffi/epoll.ts";
import { consume, signal } from "../../ffi/eventfd.ts";
import { close, fileStatus, linkTarget, setNonblocking } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { FieldError } from "../protocol/error.ts";

/** Events of an eventfd that is not read: each ring wakes every thread that waits for it. */
const EDGE = EpollEvent.IN | EpollEvent.EDGE;

/** How often a ring without a kick descriptor is looked at, ms. */
const POLL_INTERVAL = 1;

/** Owns the descriptors; -1 where there is none. */
export class Doorbells {
  readonly #reactor: Reactor;
  readonly #onKick: () => void;
  #kick = -1;
  #call = -1;
  #error = -1;
  /** Whether each ring is heard by everybody who listens, so that nobody may take it: several rings can have one event. */
  #heardByAll = false;
  #listening = false;
  #pollTimer: ReturnType<typeof setInterval> | undefined;

  /** None yet. `onKick` is called when the driver rings, or may have. */
  constructor(reactor: Reactor, onKick: () => void) {
    this.#reactor = reactor;
    this.#onKick = onKick;
  }

  /**
   * Takes over a kick descriptor; -1 to poll.
   *
   * @throws {FieldError} for one that cannot be waited for
   */
  setKick(kick: number): void {
    this.dropKick();
    this.#kick = kick;
    if (kick < 0) return;
    const { kind } = fileStatus(kick);
    if (["file", "directory", "block device"].includes(kind)) {
      throw new FieldError(
        "kick descriptor",
        "one that can be waited for, such as an eventfd",
        `a ${kind}`,
      );
    }
    setNonblocking(kick);
    this.#heardByAll = isEventfd(kick);
  }

  /** Closes the kick descriptor, left as if every ring had been taken: the driver's side may look at it once more. */
  dropKick(): void {
    if (this.#kick >= 0 && this.#heardByAll) consume(this.#kick);
    this.#closeKick();
  }

  #closeKick(): void {
    this.unlisten();
    if (this.#kick < 0) return;
    close(this.#kick);
    this.#kick = -1;
    this.#heardByAll = false;
  }

  /** Takes over a call descriptor; -1 when nobody wants to be told. */
  setCall(call: number): void {
    if (this.#call >= 0) close(this.#call);
    this.#call = call;
    if (call >= 0) setNonblocking(call);
  }

  /** Takes over an error descriptor; -1 when nobody wants to be told. */
  setError(error: number): void {
    if (this.#error >= 0) close(this.#error);
    this.#error = error;
    if (error >= 0) setNonblocking(error);
  }

  /** Begins to listen for kicks. */
  listen(): void {
    if (this.#listening) return;
    this.#listening = true;
    if (this.#kick < 0) this.#poll();
    else if (this.#heardByAll) this.#reactor.watch(this.#kick, this.#onKick, EDGE);
    else this.#reactor.watch(this.#kick, () => this.#rung());
  }

  /** Ends {@link listen}. */
  unlisten(): void {
    if (!this.#listening) return;
    this.#listening = false;
    if (this.#pollTimer === undefined) return this.#reactor.unwatch(this.#kick);
    clearInterval(this.#pollTimer);
    this.#pollTimer = undefined;
    this.#reactor.completed();
  }

  #poll(): void {
    // The event loop has to go on meanwhile.
    this.#reactor.deferred();
    this.#pollTimer = setInterval(this.#onKick, POLL_INTERVAL);
  }

  #rung(): void {
    if (consume(this.#kick) === "gone") {
      // Nobody can ring any more, but there may be requests all the same.
      this.dropKick();
      this.listen();
    }
    this.#onKick();
  }

  /** Rings at the driver. Returns false when it has given no descriptor for that. */
  call(): boolean {
    if (this.#call < 0) return false;
    signal(this.#call);
    return true;
  }

  /** Rings where a broken ring is told. Returns false when there is no descriptor for that. */
  error(): boolean {
    if (this.#error < 0) return false;
    signal(this.#error);
    return true;
  }

  /** Closes all. What has rung is left: another process may go on with the ring, and must hear it. */
  close(): void {
    this.#closeKick();
    this.setCall(-1);
    this.setError(-1);
  }
}

function isEventfd(fd: number): boolean {
  try {
    return linkTarget(fd) === "anon_inode:[eventfd]";
  } catch {
    return false; // There is no /proc.
  }
}
