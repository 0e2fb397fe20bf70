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
import { NAP, Pace } from "./pace.ts";

const ONCE = EpollEvent.IN | EpollEvent.ONE_SHOT;

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

/** How long one turn may keep the event loop from timers, signals and other promises, ms. A nap comes on top. */
const TURN = 1;
/** Looks between two readings of the clock, which costs ten looks. */
const LOOKS_PER_CHECK = 16;
/** Clock readings between two questions to the kernel for other descriptors. */
const CHECKS_PER_POLL = 16;

/**
 * One wait set, one sleeping thread, any number of sessions.
 *
 * While there is work, the isolate finds it by itself: it looks at shared memory, or naps in the kernel. When there is
 * none, it sleeps in `Atomics.waitAsync` and the event loop is free. {@link Pace} decides.
 */
export class Reactor {
  static #shared: Reactor | undefined;

  /** The process's reactor. */
  static shared(): Reactor {
    return this.#shared ??= new Reactor();
  }

  readonly #epoll = new Epoll();
  readonly #callbacks = new Map<number, () => void>();
  readonly #background = new Set<number>();
  readonly #awake: Looker[] = [];
  readonly #pace = new Pace(0.05);
  /** When work was last found or announced; -1 for never. */
  #lastWork = -1;
  /** Whether it has looked since. */
  #looked = false;
  /** Whether it has napped or slept since. */
  #slept = false;
  /** Whether to nap next. */
  #napping = false;
  /** Requests that complete by way of the event loop. */
  #outside = 0;
  #running = false;
  #cell: Int32Array | undefined;

  /** Ceiling of the time spent looking, ms. 0 turns looking off. */
  get pollCeiling(): number {
    return this.#pace.ceiling;
  }
  set pollCeiling(value: number) {
    this.#pace.ceiling = value;
  }

  /** Told of an exception in a callback, which is a mistake of whoever wrote that. The other callbacks go on. */
  onError: (error: unknown) => void = (error) => console.error("vhost-user: a callback failed:", error);

  /**
   * Calls back whenever the descriptor is readable (or its peer has gone), until {@link unwatch}. Keeps the process
   * alive, unless in the background. The callback must take what is there, or it is called again.
   *
   * @param events of {@link EpollEvent}
   * @param background whether the process may end meanwhile
   * @throws {OsError} EPERM for a descriptor that cannot be waited for, such as a regular file
   */
  watch(fd: number, callback: () => void, events: number = EpollEvent.IN, background = false): void {
    this.#epoll.add(fd, events);
    this.#callbacks.set(fd, callback);
    if (background) this.#background.add(fd);
    this.#start();
  }

  /** Whether there is something to wait for. */
  get #wanted(): boolean {
    return this.#callbacks.size > this.#background.size;
  }

  /** Starts the loop, unless it runs or there is nothing to wait for. */
  #start(): void {
    if (this.#running || !this.#wanted) return;
    this.#running = true;
    void this.#run();
  }

  /** Stops calling back for a while, for a descriptor whose readiness cannot be taken yet. */
  pause(fd: number): void {
    if (this.#callbacks.has(fd)) this.#epoll.delete(fd);
  }

  /** Ends {@link pause}; waits for `events` of {@link EpollEvent} from now on. */
  resume(fd: number, events: number = EpollEvent.IN): void {
    if (this.#callbacks.has(fd)) this.#epoll.add(fd, events);
  }

  /** Waits for other events of a descriptor that is not paused; with none, only for its peer to leave. */
  change(fd: number, events: number): void {
    if (this.#callbacks.has(fd)) this.#epoll.modify(fd, events);
  }

  /** Ends {@link watch}. Call before closing the descriptor. */
  unwatch(fd: number): void {
    if (!this.#callbacks.delete(fd)) return;
    this.#background.delete(fd);
    this.#epoll.delete(fd);
    if (!this.#wanted) this.#interrupt();
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

  /**
   * A request was taken that the event loop has to complete, such as one whose handler has returned a promise: until
   * {@link completed}, the loop must not stand still.
   */
  deferred(): void {
    this.#outside++;
  }

  /** Ends {@link deferred}. */
  completed(): void {
    this.#outside--;
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
    // One-shot: the thread is woken only while the isolate sleeps, not while it looks or naps.
    const outer = new Epoll();
    outer.add(this.#epoll.fd, ONCE);
    outer.add(stop);
    startSleeper(outer.fd, shared);
    while (this.#wanted) {
      const seen = Atomics.load(cell, 0);
      if (this.#turn()) {
        await new Promise<void>((resolve) => setImmediate(resolve));
      } else {
        outer.modify(this.#epoll.fd, ONCE);
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

  /** Handles what is ready, looks a while, naps a while. Returns whether to come back soon rather than sleep. */
  #turn(): boolean {
    const end = performance.now() + TURN;
    let ready = this.#dispatch(0);
    while (true) {
      if (this.#awake.length > 0) {
        if (this.#look(end)) return true;
        const came = this.#arm();
        this.#napping = !came && this.#pace.naps;
        this.#slept = !came;
        if (performance.now() >= end) return came || this.#napping;
        if (came) continue;
      }
      // What was just handled may go on in promises, and what handlers promise needs the event loop.
      if (!this.#napping || this.#outside > 0) return ready;
      this.#napping = false;
      ready = this.#dispatch(NAP);
      this.#pace.napped(ready);
      if (this.#awake.length === 0) return ready;
    }
  }

  /** Looks until there was nothing for as long as it may pay. Returns true when the turn is over before that. */
  #look(end: number): boolean {
    const pace = this.#pace;
    let now = performance.now();
    // Whoever wakes a looker has something for it.
    if (this.#slept) pace.slept(now - this.#lastWork);
    if (this.#slept || this.#lastWork < 0) this.#lastWork = now;
    this.#slept = false;
    for (let checks = 1;; checks++) {
      const window = pace.window;
      let found = false;
      for (let i = 0; i < LOOKS_PER_CHECK; i++) {
        let any = false;
        for (let k = 0; k < this.#awake.length; k++) any = this.#awake[k].look() || any;
        if (any && !found) {
          found = true;
          if (this.#looked) pace.lookPaid(now - this.#lastWork);
          this.#looked = false;
        } else if (window === 0) break;
      }
      now = performance.now();
      if (found) this.#lastWork = now;
      else if (now - this.#lastWork >= window) break;
      else this.#looked = true;
      if (now >= end) return true;
      if (checks % CHECKS_PER_POLL === 0) this.#dispatch(0);
    }
    if (this.#looked) pace.lookedInVain();
    this.#looked = false;
    return false;
  }

  /** Asks to be told of what is new. Returns whether something came in before that. */
  #arm(): boolean {
    let came = false;
    for (let k = this.#awake.length - 1; k >= 0; k--) {
      const looker = this.#awake[k];
      if (looker.idle()) came = true;
      else if (this.#awake[k] === looker) this.#awake.splice(k, 1);
    }
    return came;
  }

  #dispatch(timeout: number): boolean {
    const n = this.#epoll.wait(timeout);
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
