/**
 * The threads of a server that run its rings.
 *
 * @module
 */

import { threadRefusal } from "../../../ffi/deno.ts";
import type { DeviceBehaviour, DeviceDefinition, FrontEndLink } from "../device.ts";
import type { Limits } from "../limits.ts";
import type { RingCounters } from "../ring_counters.ts";
import type { RingEvents } from "../ring_host.ts";
import type { ThreadMetrics } from "../server_metrics.ts";
import type { DeviceSource, RingSeat } from "./messages.ts";
import { RemoteHost } from "./remote_host.ts";
import { RingThread } from "./ring_thread.ts";

/** Most threads. */
export const MAX_THREADS = 64;

/** Threads, started once and shared by all sessions of a server. */
export class ThreadPool {
  readonly #threads: readonly RingThread[];
  readonly #name: string;
  readonly #definition: DeviceDefinition;
  #sessions = 0;

  private constructor(threads: readonly RingThread[], name: string, definition: DeviceDefinition) {
    this.#threads = threads;
    this.#name = name;
    this.#definition = definition;
  }

  /**
   * Starts threads, each of which makes a device of its own.
   *
   * @param count how many
   * @param name of the device, for people
   * @param source the module that makes the device, when that is not for its definition to say
   * @param pollCeiling longest time to look at a ring before waiting, ms
   * @throws {RangeError} for a number that is not 1 to {@link MAX_THREADS}
   * @throws {TypeError} for a device that cannot be made in a thread
   * @throws {Error} when a thread cannot load its modules
   */
  static async start(
    count: number,
    name: string,
    definition: DeviceDefinition,
    source: DeviceSource | undefined,
    pollCeiling: number,
  ): Promise<ThreadPool> {
    if (!Number.isInteger(count) || count < 1 || count > MAX_THREADS) {
      throw new RangeError(`workers must be 1 to ${MAX_THREADS}, got ${count}`);
    }
    const { module, options, group, eventLoop } = definition.worker ?? {};
    if (group !== undefined && !(Number.isInteger(group) && group > 0)) {
      throw new RangeError(`${name}: worker.group must be a number of rings, got ${group}`);
    }
    const device = source ?? (module === undefined ? undefined : { module: String(module), options });
    if (device === undefined) {
      throw new TypeError(
        `${name}: this device cannot run in worker threads: its definition does not say how it is made there ` +
          "(worker), and serve() was not given the URL of a module that makes it",
      );
    }
    const owned = (definition.queues ?? []).some((queue) => typeof queue !== "function");
    if (owned) checkGroup(name, definition);
    for (const url of [import.meta.url, device.module]) {
      const refusal = threadRefusal(url);
      if (refusal !== undefined) throw new Error(`${name}: cannot start worker threads: ${refusal}`);
    }
    const settings = { pollCeiling, eventLoop: eventLoop ?? owned };
    const threads = Array.from({ length: count }, (_, index) => new RingThread(index, device, settings));
    const pool = new ThreadPool(threads, name, definition);
    const settled = await Promise.allSettled(threads.map(({ ready }) => ready));
    for (const each of settled) {
      if (each.status !== "rejected") continue;
      await pool.end();
      throw new Error(`${name}: cannot start worker threads: ${(each.reason as Error).message}`, {
        cause: each.reason,
      });
    }
    return pool;
  }

  /**
   * Shares the rings of a new session out: those of a group together, group after group to the next thread.
   *
   * @param counters where a ring counts
   * @throws {TypeError} when rings that are owned do not say which belong together
   */
  open(
    behaviour: DeviceBehaviour,
    events: RingEvents,
    link: FrontEndLink,
    limits: Limits,
    counters: (index: number) => RingCounters,
  ): RemoteHost[] {
    if (behaviour.queues.some((queue) => typeof queue !== "function")) {
      checkGroup(this.#name, this.#definition);
    }
    const group = this.#definition.worker?.group ?? 1;
    const rings: RingSeat[][] = this.#threads.map(() => []);
    behaviour.queues.slice(0, limits.rings).forEach((_, index) =>
      rings[Math.floor(index / group) % rings.length].push({ index, counters: counters(index).shared })
    );
    const session = ++this.#sessions;
    return this.#threads.filter(({ index }) => rings[index].length > 0).map((thread) =>
      new RemoteHost(thread, session, rings[thread.index], events, link, limits)
    );
  }

  /** How the threads wait, in their order. */
  get metrics(): ThreadMetrics[] {
    return this.#threads.map((thread) => ({
      thread: String(thread.index),
      counters: thread.counters,
      breathe: (ms) => thread.breathe(ms),
    }));
  }

  /** Ends the threads, when there is no session any more. */
  async end(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.end()));
  }
}

function checkGroup(name: string, { worker }: DeviceDefinition): void {
  if (worker?.group !== undefined) return;
  throw new TypeError(
    `${name}: this device owns rings and does not say how many of them belong together (worker.group), so they ` +
      "cannot be spread over worker threads",
  );
}
