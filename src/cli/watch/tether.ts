/**
 * What ties a process that serves one version of a module to the one that watches.
 *
 * @module
 */

import { consume, signal } from "../../../ffi/eventfd.ts";
import { close } from "../../../ffi/fd.ts";
import { EpollEvent } from "../../../ffi/epoll.ts";
import { Reactor } from "../../../ffi/reactor.ts";

/** One end of a pair of connected sockets; over each a single ring goes. Who ends without saying goodbye is gone as well. */
export class Tether {
  readonly #fd: number;
  #watched = false;
  #closed = false;
  #resolve: ((heard: "gone") => void) | undefined;

  /** Takes over the descriptor. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Rings at the other end. */
  ring(): void {
    if (!this.#closed) signal(this.#fd);
  }

  /** Waits until the other end rings, or is gone. Ends with {@link close} as if it were gone. */
  next(): Promise<"rung" | "gone"> {
    if (this.#closed) return Promise.resolve("gone");
    return new Promise((resolve) => {
      this.#resolve = resolve;
      this.#watch(() => {
        const heard = consume(this.#fd);
        if (heard === "quiet") return;
        this.#unwatch();
        resolve(heard);
      });
    });
  }

  /** Is aborted when the other end is gone. Does not keep the process alive. */
  gone(): AbortSignal {
    const controller = new AbortController();
    this.#watch(() => {
      if (consume(this.#fd) !== "gone") return;
      this.#unwatch();
      controller.abort();
    }, true);
    return controller.signal;
  }

  #watch(callback: () => void, background = false): void {
    this.#unwatch();
    Reactor.shared().watch(this.#fd, callback, EpollEvent.IN, background);
    this.#watched = true;
  }

  #unwatch(): void {
    if (this.#watched) Reactor.shared().unwatch(this.#fd);
    this.#watched = false;
  }

  /** Closes this end. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#unwatch();
    close(this.#fd);
    this.#resolve?.("gone");
  }
}
