/**
 * Sleeping without blocking the isolate.
 *
 * @module
 */

import { startSleeper } from "./deno.ts";
import { Epoll, EpollEvent } from "./epoll.ts";
import { eventfd, signal } from "./eventfd.ts";
import { close } from "./fd.ts";

const ONCE = EpollEvent.IN | EpollEvent.ONE_SHOT;

/** A thread that sleeps in the kernel in place of the isolate, from the first time that this is needed. */
export class Sleeper {
  readonly #set: Epoll;
  readonly #shared = new SharedArrayBuffer(20);
  readonly #cell: Int32Array = new Int32Array(this.#shared);
  #outer: Epoll | undefined;
  #stop = -1;

  /** For a wait set, which stays the caller's. */
  constructor(set: Epoll) {
    this.#set = set;
  }

  /** From now on the thread's own event loop gets a turn so often, ms; 0 for when it will. */
  breathe(ms: number): void {
    Atomics.store(this.#cell, 4, ms);
    if (this.#outer !== undefined) signal(this.#stop);
  }

  /** How often a sleep was ended. */
  get interruptions(): number {
    return Atomics.load(this.#cell, 0);
  }

  /** Ends a sleep. */
  interrupt(): void {
    Atomics.add(this.#cell, 0, 1);
    Atomics.notify(this.#cell, 0);
  }

  /** Whether there is the thread. */
  get started(): boolean {
    return this.#outer !== undefined;
  }

  #start(): Epoll {
    const outer = new Epoll();
    this.#stop = eventfd();
    // One-shot: the thread is woken only while the isolate sleeps, not while it looks or naps.
    outer.add(this.#set.fd, ONCE);
    outer.add(this.#stop, EpollEvent.IN | EpollEvent.EDGE);
    startSleeper(outer.fd, this.#shared);
    return this.#outer = outer;
  }

  /** Starts the thread, unless it is there, and waits until it is up. */
  async start(): Promise<void> {
    if (this.#outer === undefined) this.#start();
    const up = Atomics.waitAsync(this.#cell, 3, 0);
    if (up.async) await up.value;
  }

  /**
   * Sleeps until something in the set is ready, or {@link interrupt} is called.
   *
   * @param seen what {@link interruptions} was before the caller has last looked whether there is a reason to sleep
   * @param breath of {@link breathe}
   */
  async sleep(seen: number, breath: number): Promise<void> {
    Atomics.store(this.#cell, 4, breath);
    if (this.#outer === undefined) this.#start();
    else this.#outer.modify(this.#set.fd, ONCE);
    const wait = Atomics.waitAsync(this.#cell, 0, seen);
    if (wait.async) await wait.value;
  }

  /** Ends the thread. */
  async end(): Promise<void> {
    if (this.#outer === undefined) return;
    Atomics.store(this.#cell, 1, 1);
    signal(this.#stop);
    const ended = Atomics.waitAsync(this.#cell, 2, 0);
    if (ended.async) await ended.value;
    this.#outer.close();
    close(this.#stop);
  }
}
