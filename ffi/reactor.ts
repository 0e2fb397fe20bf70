/**
 * Waiting for descriptors without blocking the isolate.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { startSleeper } from "./deno.ts";
import { Epoll, EpollEvent } from "./epoll.ts";
import { eventfd, signal } from "./eventfd.ts";
import { close } from "./fd.ts";

/**
 * Work that announces itself in shared memory, where looking costs nanoseconds and being told costs tens of
 * microseconds. Between {@link Reactor.wake} and {@link idle} the reactor keeps looking.
 */
export interface Looker {
  /** Does what there is to do, a bounded amount of it. Returns whether there was anything. */
  look(): boolean;
  /** Asks to be told from now on. Returns true when something came in meanwhile: look again. */
  idle(): boolean;
}

/** How long one turn may keep the event loop from timers, signals and other promises, ms. */
const TURN = 1;
/** Looks between two readings of the clock, which costs ten looks. */
const LOOKS_PER_CHECK = 16;
/** Clock readings between two questions to the kernel for other descriptors. */
const CHECKS_PER_POLL = 16;
/** The shortest time worth looking, ms. */
const SHORTEST = 0.004;
/** After how many sleeps looking is tried again: at first, and at last when it never pays. */
const FIRST_PROBE = 8;
const LAST_PROBE = 1024;

/**
 * One wait set, one sleeping thread, any number of sessions.
 *
 * While there is work, the isolate finds it by itself; when there is none, it sleeps in `Atomics.waitAsync` and the
 * event loop is free. How long it looks before it sleeps adapts: it doubles when looking found work, up to the ceiling,
 * and halves when it did not, down to nothing.
 */
export class Reactor {
  static #shared: Reactor | undefined;

  /** The process's reactor. */
  static shared(): Reactor {
    return this.#shared ??= new Reactor();
  }

  /** Ceiling of the time spent looking, ms. 0 turns looking off. */
  pollCeiling = 0.05;

  readonly #epoll = new Epoll();
  readonly #callbacks = new Map<number, () => void>();
  readonly #awake: Looker[] = [];
  #window = 0;
  /** Times slept since looking was given up, and how many there will be before it is tried again. */
  #sleeps = 0;
  #probeAfter = 0;
  /** When work was last found, where looking goes on from one turn into the next; 0 otherwise. */
  #lastWork = 0;
  #looked = false;
  #running = false;
  #cell: Int32Array | undefined;

  /** Told of an exception in a callback, which is a mistake of whoever wrote that. The other callbacks go on. */
  onError: (error: unknown) => void = (error) => console.error("vhost-user: a callback failed:", error);

  /**
   * Calls back whenever the descriptor is readable (or its peer has gone), until {@link unwatch}. Keeps the process
   * alive. The callback must take what is there, or it is called again.
   *
   * @param events of {@link EpollEvent}
   * @throws {OsError} EPERM for a descriptor that cannot be waited for, such as a regular file
   */
  watch(fd: number, callback: () => void, events: number = EpollEvent.IN): void {
    this.#epoll.add(fd, events);
    this.#callbacks.set(fd, callback);
    this.#start();
  }

  /** Starts the loop, unless it runs or there is nothing to wait for. */
  #start(): void {
    if (this.#running || this.#callbacks.size === 0) return;
    this.#running = true;
    void this.#run();
  }

  /** Stops calling back for a while, for a descriptor whose readiness cannot be taken yet. */
  pause(fd: number): void {
    if (this.#callbacks.has(fd)) this.#epoll.delete(fd);
  }

  /** Ends {@link pause}. */
  resume(fd: number): void {
    if (this.#callbacks.has(fd)) this.#epoll.add(fd);
  }

  /** Ends {@link watch}. Call before closing the descriptor. */
  unwatch(fd: number): void {
    if (!this.#callbacks.delete(fd)) return;
    this.#epoll.delete(fd);
    if (this.#callbacks.size === 0) this.#interrupt();
  }

  /** Starts looking: something has come, or may have. */
  wake(looker: Looker): void {
    // The loop does not wait while it has one to look at.
    if (this.#awake.includes(looker)) return;
    this.#awake.push(looker);
    this.#interrupt();
  }

  /** Stops looking, without asking to be told. */
  rest(looker: Looker): void {
    const at = this.#awake.indexOf(looker);
    if (at >= 0) this.#awake.splice(at, 1);
  }

  /** Makes the loop go round once more, when it waits. */
  #interrupt(): void {
    if (this.#cell === undefined) return;
    Atomics.add(this.#cell, 0, 1);
    Atomics.notify(this.#cell, 0);
  }

  async #run(): Promise<void> {
    const shared = new SharedArrayBuffer(12);
    const cell = this.#cell = new Int32Array(shared);
    const stop = eventfd();
    // Edge-triggered: one wake-up for each change of the inner set. Nothing need be armed again, and what is not
    // handled yet does not make the sleeping thread spin.
    const outer = new Epoll();
    outer.add(this.#epoll.fd, EpollEvent.IN | EpollEvent.EDGE);
    outer.add(stop);
    startSleeper(outer.fd, shared);
    while (this.#callbacks.size > 0) {
      const seen = Atomics.load(cell, 0);
      if (this.#turn()) {
        await new Promise<void>((resolve) => setImmediate(resolve));
      } else {
        const wait = Atomics.waitAsync(cell, 0, seen);
        if (wait.async) await wait.value;
      }
    }
    Atomics.store(cell, 1, 1);
    signal(stop);
    const ended = Atomics.waitAsync(cell, 2, 0);
    if (ended.async) await ended.value;
    outer.close();
    close(stop);
    this.#cell = undefined;
    this.#running = false;
    this.#start();
  }

  /** Handles what is ready, looks a while. Returns whether to come back soon rather than sleep. */
  #turn(): boolean {
    const start = performance.now();
    let worked = this.#dispatch();
    let lastWork = worked || this.#lastWork === 0 ? start : this.#lastWork;
    let looked = !worked && this.#looked;
    this.#lastWork = 0;
    this.#looked = false;
    if (this.#awake.length === 0) return worked;
    if (this.#window === 0 && ++this.#sleeps >= this.#probeAfter) this.#window = this.pollCeiling;
    const window = Math.min(this.#window, this.pollCeiling);
    let now = start;
    for (let checks = 1;; checks++) {
      let found = false;
      for (let i = 0; i < LOOKS_PER_CHECK; i++) {
        let any = false;
        for (let k = 0; k < this.#awake.length; k++) any = this.#awake[k].look() || any;
        if (any) found = true;
        else if (window === 0) break;
      }
      now = performance.now();
      if (found) {
        if (looked) this.#paid();
        looked = false;
        lastWork = now;
      } else {
        looked = true;
        if (now - lastWork >= window) break;
      }
      if (now - start >= TURN) {
        this.#lastWork = lastWork;
        this.#looked = looked;
        return true;
      }
      if (checks % CHECKS_PER_POLL === 0 && this.#dispatch()) lastWork = now;
    }
    if (window > 0) this.#inVain();
    for (let k = this.#awake.length - 1; k >= 0; k--) {
      const looker = this.#awake[k];
      if (looker.idle()) worked = true;
      else if (this.#awake[k] === looker) this.#awake.splice(k, 1);
    }
    return worked;
  }

  /** Looking found work that sleeping would have found much later. */
  #paid(): void {
    this.#window = Math.min(this.pollCeiling, Math.max(SHORTEST, this.#window * 2));
    this.#probeAfter = FIRST_PROBE;
  }

  /** Nothing came while looking. Tried anew now and then, ever more rarely. */
  #inVain(): void {
    this.#window /= 2;
    if (this.#window >= SHORTEST) return;
    this.#window = 0;
    this.#sleeps = 0;
    this.#probeAfter = Math.min(LAST_PROBE, Math.max(FIRST_PROBE, this.#probeAfter * 2));
  }

  #dispatch(): boolean {
    const n = this.#epoll.wait(0);
    for (let i = 0; i < n; i++) {
      // A callback before this one may have closed this descriptor.
      const callback = this.#callbacks.get(this.#epoll.ready[i]);
      try {
        callback?.();
      } catch (error) {
        this.onError(error);
      }
    }
    return n > 0;
  }
}
