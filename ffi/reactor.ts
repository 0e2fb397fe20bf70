/**
 * Waiting for descriptors without blocking the isolate.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { Epoll, EpollEvent } from "./epoll.ts";
import { NAP, Pace } from "./pace.ts";
import { ReactorCounters } from "./reactor_counters.ts";
import { Sleeper } from "./sleeper.ts";

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
/** Naps in vain after which it sleeps, in a thread of its own. */
const VAIN_NAPS = 32;
/** What a loop that waits for memory tells the processor; a recent addition to the language. */
const pause: () => void = Atomics.pause ?? (() => {});
/** Looks between two readings of the clock, which costs ten looks. */
const LOOKS_PER_CHECK = 16;
/** Clock readings between two questions to the kernel for other descriptors. */
const CHECKS_PER_POLL = 16;

/**
 * One wait set, one sleeping thread, any number of sessions.
 *
 * While there is work, the isolate finds it by itself: it looks at shared memory, or naps in the kernel. When there is
 * none, it sleeps in `Atomics.waitAsync` and the event loop is free. {@link Pace} decides.
 *
 * In a thread of its own ({@link dedicate}) it does not sleep but wait in the kernel, without limit: whoever rings wakes the
 * thread that handles it. The event loop then gets its turn when a message comes, and while handlers have promises under way.
 */
export class Reactor {
  static #shared: Reactor | undefined;

  /** The process's reactor. */
  static shared(): Reactor {
    return this.#shared ??= new Reactor();
  }

  /** How often it has gone through all that is awake; counts up to 2^30 and begins again. */
  round = 0;
  /** How it waits, counted. Who reads them in another thread puts theirs in place. */
  counters: ReactorCounters = new ReactorCounters();
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
  #expecting: (() => boolean) | undefined;
  /** Whether promises were made or settled, which the event loop has had no turn for. */
  #unsettled = false;
  /** Naps in a thread of its own that have ended without anything to do. */
  #vainNaps = 0;
  /** When it last made sure of a whole turn of the event loop. */
  #breathed = 0;
  #running = false;
  #sleeper: Sleeper | undefined;
  #onEnd: (() => void) | undefined;

  /** Ceiling of the time spent looking, ms. 0 turns looking off. */
  get pollCeiling(): number {
    return this.#pace.ceiling;
  }
  set pollCeiling(value: number) {
    this.#pace.ceiling = value;
  }

  /** Whether it never looks: whoever has something for it wakes it up, which takes long. */
  get sleeps(): boolean {
    return this.#pace.ceiling === 0;
  }

  /**
   * Gives it this thread: from now on the event loop is free only when there is a reason.
   *
   * @param expecting whether a message is on its way; who sends one also rings a descriptor that the reactor watches
   */
  dedicate(expecting: () => boolean): void {
    this.#expecting = expecting;
  }

  /**
   * Starts the thread that sleeps before it is needed: to start one, the runtime reads files and asks the system for much. It
   * stays, and the process with it, until something has been watched and nothing is any more.
   */
  async prepare(): Promise<void> {
    if (this.#expecting !== undefined) return;
    this.#sleeper ??= new Sleeper(this.#epoll);
    await this.#sleeper.start();
  }

  /** Takes back {@link prepare}, when nothing is watched. */
  async release(): Promise<void> {
    if (this.#running) return;
    const sleeper = this.#sleeper;
    this.#sleeper = undefined;
    await sleeper?.end();
  }

  /**
   * Lets the event loops of this thread, and of the one that sleeps for it, have a turn so often, ms, whether or not there is
   * a reason. For what the runtime does by itself: Deno exports no metrics while an event loop of the process stands still.
   */
  breathe(ms: number): void {
    this.counters.breath = ms;
    this.#sleeper?.breathe(ms);
  }

  /** Ends it, with its thread: nothing is watched any more. */
  async close(): Promise<void> {
    this.#callbacks.clear();
    this.#background.clear();
    this.#interrupt();
    if (this.#running) await new Promise<void>((resolve) => this.#onEnd = resolve);
    this.#epoll.close();
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
    return this.#outside > 0 || this.#callbacks.size > this.#background.size;
  }

  /** Starts the loop, unless it runs or there is nothing to wait for. */
  #start(): void {
    if (this.#running || !this.#wanted) return;
    this.#running = this.#unsettled = true;
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
   * {@link completed}, the loop must not stand still, nor end.
   */
  deferred(): void {
    this.#outside++;
    this.#unsettled = true;
    this.#start();
  }

  /** Ends {@link deferred}. */
  completed(): void {
    this.#outside--;
    this.#unsettled = true;
    if (this.#outside === 0 && (this.#expecting !== undefined || !this.#wanted)) this.#interrupt();
  }

  /** A promise that a callback or a look settles: {@link deferred} until then. */
  promise<T>(start: (resolve: (value: T) => void) => void): Promise<T> {
    return new Promise((resolve) => {
      this.deferred();
      start((value) => {
        this.completed();
        resolve(value);
      });
    });
  }

  /** Makes the loop go round once more, when it waits. */
  #interrupt(): void {
    this.#sleeper?.interrupt();
  }

  async #run(): Promise<void> {
    const sleeper = this.#sleeper ??= new Sleeper(this.#epoll);
    while (this.#wanted) {
      const seen = sleeper.interruptions;
      if (!this.#turn() && !this.#napped(sleeper)) {
        this.counters.sleep();
        await sleeper.sleep(seen, this.counters.breath);
        continue;
      }
      const whole = this.#mustBreathe();
      await new Promise<void>((resolve) => whole ? setTimeout(resolve, 0) : setImmediate(resolve));
      this.#unsettled = false;
    }
    await sleeper.end();
    this.#sleeper = undefined;
    this.#running = false;
    this.#onEnd?.();
    this.#start();
  }

  /** Whether the event loop needs a whole turn: `setImmediate` leaves out what Deno does by itself. */
  #mustBreathe(): boolean {
    const { breath } = this.counters;
    if (breath === 0) return false;
    const now = performance.now();
    if (now - this.#breathed < breath) return false;
    this.#breathed = now;
    return true;
  }

  /**
   * In a thread of its own, promises are mostly settled by what the kernel tells: a nap between turns of the event loop then does
   * as well as another thread that sleeps. Returns false once it has turned out not to.
   */
  #napped(sleeper: Sleeper): boolean {
    if (this.#expecting === undefined) return false;
    if (this.#unsettled) return true;
    if (sleeper.started || this.#vainNaps >= VAIN_NAPS) return false;
    this.counters.nap();
    if (!this.#dispatch(NAP)) this.#vainNaps++;
    return true;
  }

  /** Handles what is ready, looks a while, naps a while. Returns whether to come back soon rather than sleep. */
  #turn(): boolean {
    let end = performance.now() + TURN;
    let ready = this.#dispatch(0);
    while (true) {
      if (this.#awake.length > 0) {
        if (this.#look(end)) return true;
        const came = this.#arm();
        this.#napping = !came && this.#pace.naps;
        this.#slept = !came;
        if (performance.now() >= end) return came || this.#napping || this.#expecting !== undefined;
        if (came) continue;
      }
      if (this.#expecting !== undefined && this.#outside === 0) {
        if (this.#unsettled || this.#expecting() || !this.#wanted) return true;
        this.counters.wait();
        const { breath } = this.counters;
        this.#dispatch(breath > 0 ? breath : -1);
        if (breath > 0) return true;
        end = performance.now() + TURN;
        continue;
      }
      // What was just handled may go on in promises, and what handlers promise needs the event loop.
      if (!this.#napping || this.#outside > 0) return ready;
      this.#napping = false;
      this.counters.nap();
      ready = this.#dispatch(NAP);
      this.#pace.napped(ready);
      if (this.#awake.length === 0) return ready;
    }
  }

  /** Looks until there was nothing for as long as it may pay. Returns true when the turn is over before that. */
  #look(end: number): boolean {
    const pace = this.#pace;
    this.counters.look();
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
        this.round = (this.round + 1) & 0x3fff_ffff;
        for (let k = 0; k < this.#awake.length; k++) any = this.#awake[k].look() || any;
        if (any && !found) {
          found = true;
          if (this.#looked) pace.lookPaid(now - this.#lastWork);
          this.#looked = false;
        } else if (!any) {
          if (window === 0) break;
          // Whoever shares the core, or the cache line that is looked at, gets on meanwhile.
          pause();
        }
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
    if (n > 0) this.counters.wake(n);
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
