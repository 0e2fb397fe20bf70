/**
 * A tracer: a socket that front-ends connect to, each of whom gets a connection with the back-end.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import { accept, connect, hasLeft } from "../../../ffi/socket.ts";
import { errorText } from "../../backend/log.ts";
import { Listener } from "../../../ffi/listener.ts";
import type { Entry } from "./entry.ts";
import { TraceSession } from "./session.ts";
import { Summary } from "./summary.ts";
import { otherSide, type Side } from "./wire.ts";

/** Where a tracer stands, and who listens to it. */
export interface TracerOptions {
  /** Path of the socket to listen on. A stale file there is replaced. */
  readonly listen: string;
  /** Path of the socket to connect to, once for each connection that is accepted. */
  readonly connect: string;
  /** Who connects to `listen`: the front-end by default. */
  readonly accepts?: Side;
  /** Permission bits of the socket file; 0o600 by default. */
  readonly socketMode?: number;
  /** How long something may take before a note says that it does, ms; 1000 by default. */
  readonly patience?: number;
  /** Takes every entry. */
  readonly onEntry: (entry: Entry) => void;
  /** Waiting; the process's reactor by default. */
  readonly reactor?: Reactor;
}

/** Between two attempts to accept or to connect, ms. */
const RETRY = 100;
/** Attempts to connect to somebody whose queue is full. */
const ATTEMPTS = 50;

/** Traces sessions until it is closed. */
export class Tracer {
  /** Resolves when the tracer and all sessions are closed. */
  readonly finished: Promise<void>;
  /** What was seen so far. */
  readonly summary: Summary = new Summary();
  readonly #options: TracerOptions;
  readonly #reactor: Reactor;
  readonly #listener: Listener;
  readonly #sessions = new Set<TraceSession>();
  readonly #timers = new Map<ReturnType<typeof setTimeout>, () => void>();
  #begun = 0;
  #number = 0;
  #closed = false;
  #finish: () => void = () => {};

  /**
   * Starts listening.
   *
   * @throws {SocketInUseError} when another process listens on the path
   * @throws {OsError} when the socket cannot be made
   */
  constructor(options: TracerOptions) {
    this.#options = options;
    this.#reactor = options.reactor ?? Reactor.shared();
    this.finished = new Promise((resolve) => this.#finish = resolve);
    this.#listener = new Listener(options.listen, options.socketMode ?? 0o600);
    this.#reactor.watch(this.#listener.fd, () => this.#accept());
  }

  /** Stops listening, removes the socket file and closes all sessions. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reactor.unwatch(this.#listener.fd);
    this.#listener.close();
    for (const [timer, cancel] of this.#timers) {
      clearTimeout(timer);
      cancel();
    }
    this.#timers.clear();
    for (const session of [...this.#sessions]) session.end();
    this.#finishIfIdle();
  }

  #finishIfIdle(): void {
    if (this.#closed && this.#sessions.size === 0) this.#finish();
  }

  #clock(): number {
    return performance.now() - this.#begun;
  }

  #emit(entry: Entry): void {
    this.summary.add(entry);
    this.#options.onEntry(entry);
  }

  #error(session: number, text: string): void {
    this.#emit({ type: "note", session, time: this.#clock(), channel: "main", level: "error", text });
  }

  #later(action: () => void, cancel: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, RETRY);
    this.#timers.set(timer, cancel);
  }

  #accept(): void {
    try {
      for (;;) {
        const fd = accept(this.#listener.fd);
        if (fd === null) return;
        if (hasLeft(fd)) {
          // Somebody has looked whether we listen.
          close(fd);
          continue;
        }
        if (this.#number === 0) this.#begun = performance.now();
        this.#connect(++this.#number, fd, ATTEMPTS);
      }
    } catch (error) {
      // Out of descriptors, most likely: sessions that end will free some.
      this.#error(this.#number, `cannot accept: ${errorText(error)}; trying again`);
      this.#reactor.pause(this.#listener.fd);
      this.#later(() => this.#reactor.resume(this.#listener.fd), () => {});
    }
  }

  #connect(number: number, accepted: number, attempts: number): void {
    let fd: number;
    try {
      fd = connect(this.#options.connect);
    } catch (error) {
      if (error instanceof OsError && error.errno === Errno.EAGAIN && attempts > 1) {
        return this.#later(() => this.#connect(number, accepted, attempts - 1), () => close(accepted));
      }
      close(accepted);
      return this.#error(number, `no session: ${errorText(error)}`);
    }
    const accepts = this.#options.accepts ?? "front-end";
    const fds = { [accepts]: accepted, [otherSide(accepts)]: fd } as Record<Side, number>;
    try {
      this.#sessions.add(this.#open(number, fds));
    } catch (error) {
      for (const each of [accepted, fd]) close(each);
      this.#error(number, `no session: ${errorText(error)}`);
    }
  }

  #open(number: number, fds: Readonly<Record<Side, number>>): TraceSession {
    const session: TraceSession = new TraceSession(fds, {
      number,
      reactor: this.#reactor,
      patience: this.#options.patience ?? 1000,
      clock: () => this.#clock(),
      emit: (entry) => this.#emit(entry),
      onEnd: () => {
        this.#sessions.delete(session);
        this.#finishIfIdle();
      },
    });
    return session;
  }
}
