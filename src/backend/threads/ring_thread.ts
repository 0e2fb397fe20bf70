/**
 * A thread that runs rings, as the server's thread sees it.
 *
 * @module
 */

import { startThread, type Thread } from "../../../ffi/deno.ts";
import { eventfd, signal } from "../../../ffi/eventfd.ts";
import { close } from "../../../ffi/fd.ts";
import { ReactorCounters } from "../../../ffi/reactor_counters.ts";
import { type DeviceSource, type FromThread, type Outcome, type ToThread, unpack } from "./messages.ts";

/** Takes what a thread sends about one session. */
export interface SessionInbox {
  /** A message came. */
  receive(message: Exclude<FromThread, { kind: "started" | "ended" }>): void;
  /** The thread has ended by an error. */
  lost(error: Error): void;
}

/** Where the module of the thread is: in a package for npm all files end in `.js`. */
const MODULE = new URL("./main.ts", import.meta.url).href.replace(
  /ts$/,
  import.meta.url.endsWith(".js") ? "js" : "ts",
);

// Not called: whoever gathers the modules of a program, for a cache, a package or an executable, looks for imports.
void (() => import("./main.ts"));

/** A thread, and the sessions that it runs rings of. */
export class RingThread {
  /** Number in its pool. */
  readonly index: number;
  /** Resolves when it has loaded its device; rejects when it cannot. */
  readonly ready: Promise<void>;
  /** How its reactor waits. */
  readonly counters: ReactorCounters = new ReactorCounters();
  /** Why it can do nothing more. */
  failure: Error | undefined;
  readonly #thread: Thread;
  readonly #sent = new Int32Array(new SharedArrayBuffer(4));
  readonly #bell = eventfd();
  readonly #sessions = new Map<number, SessionInbox>();
  #started: (outcome: Outcome) => void = () => {};
  #ended: () => void = () => {};

  /** Starts it. */
  constructor(index: number, device: DeviceSource, options: { pollCeiling: number; eventLoop: boolean }) {
    this.index = index;
    this.ready = new Promise<Outcome>((resolve) => this.#started = resolve).then((outcome) => {
      unpack(outcome);
    });
    this.#thread = startThread(
      MODULE,
      `vhost-user rings ${index}`,
      (message) => this.#receive(message as FromThread),
      (reason) => this.#fail(new Error(`ring thread ${index} has ended: ${reason}`)),
      () => signal(this.#bell),
    );
    const { buffer } = this.#sent;
    const { shared: counters } = this.counters;
    this.post({ kind: "start", device, sent: buffer, bell: this.#bell, counters, ...options });
  }

  /** Sends a message. The thread takes it even while it waits in the kernel. */
  post(message: ToThread): void {
    if (this.failure !== undefined) return;
    Atomics.add(this.#sent, 0, 1);
    this.#thread.post(message);
    signal(this.#bell);
  }

  /** Has its event loop get a turn so often, ms. */
  breathe(ms: number): void {
    this.counters.breath = ms;
    if (this.failure === undefined) signal(this.#bell);
  }

  /** Has what it sends about a session taken, until {@link leave}. */
  join(session: number, inbox: SessionInbox): void {
    this.#sessions.set(session, inbox);
  }

  /** Ends {@link join}. */
  leave(session: number): void {
    this.#sessions.delete(session);
  }

  /** Ends it, when it has no session any more. */
  async end(): Promise<void> {
    if (this.failure === undefined) {
      const ended = new Promise<void>((resolve) => this.#ended = resolve);
      this.post({ kind: "end" });
      await ended;
    }
    this.failure ??= new Error(`ring thread ${this.index} was ended`);
    this.#thread.end();
    close(this.#bell);
  }

  #receive(message: FromThread): void {
    if (message.kind === "started") this.#started(message.outcome);
    else if (message.kind === "ended") this.#ended();
    else this.#sessions.get(message.session)?.receive(message);
  }

  #fail(error: Error): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    this.#started({ error: { name: error.name, message: error.message, fields: {} } });
    this.#ended();
    for (const inbox of [...this.#sessions.values()]) inbox.lost(error);
  }
}
