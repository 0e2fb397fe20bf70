/**
 * What is counted of a server.
 *
 * @module
 */

import type { ReactorCounters } from "../../ffi/reactor_counters.ts";
import { RingCounters } from "./ring_counters.ts";

/** How a thread waits. */
export interface ThreadMetrics {
  /** `main` for the thread of the server, or the worker's number. */
  readonly thread: string;
  /** Its counters; those of the main thread are of all servers in it. */
  readonly counters: ReactorCounters;
  /** Has its event loop get a turn so often, ms, from now on. */
  breathe(ms: number): void;
}

/**
 * Figures of a server. They count from its start and over all its sessions, and are read without disturbing anybody.
 * `@vhost/user/metrics` hands them on.
 */
export class ServerMetrics {
  /** Name of the device. */
  readonly device: string;
  /** Where front-ends connect: a path, or `fd:` and a number. */
  readonly socket: string;
  /** Front-ends that have connected. */
  sessionsOpened = 0;
  /** Front-ends that have left, or were dropped. */
  sessionsEnded = 0;
  /** Of these, those that were dropped for what they did. */
  sessionsFailed = 0;
  /** Threads that run rings, and that of the server. */
  readonly threads: readonly ThreadMetrics[];
  readonly #rings: RingCounters[] = [];
  #measuring = false;

  /** All zero. */
  constructor(device: string, socket: string, threads: readonly ThreadMetrics[]) {
    this.device = device;
    this.socket = socket;
    this.threads = threads;
  }

  /** Counters of the rings that sessions have had so far, by index. */
  get rings(): readonly RingCounters[] {
    return this.#rings;
  }

  /** Counters of a ring. */
  ring(index: number): RingCounters {
    for (let made = this.#rings.length; made <= index; made++) {
      const counters = new RingCounters();
      counters.measuring = this.#measuring;
      this.#rings.push(counters);
    }
    return this.#rings[index];
  }

  /** Whether the time from taking a request to returning it is measured, for a sample of them. Off at first. */
  get measuring(): boolean {
    return this.#measuring;
  }
  set measuring(on: boolean) {
    this.#measuring = on;
    for (const counters of this.#rings) counters.measuring = on;
  }
}
