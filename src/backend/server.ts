/**
 * Serving a device on a socket.
 *
 * @module
 */

import { close, setNonblocking } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { accept, isListening, peerCredentials } from "../../ffi/socket.ts";
import { Listener } from "../../ffi/listener.ts";
import type { Device } from "./device.ts";
import { type Limits, limitsOf } from "./limits.ts";
import { errorText, type Log, type LogEvent, type LogLevel, logToStderr } from "./log.ts";
import { ServerMetrics } from "./server_metrics.ts";
import { Session } from "./session.ts";
import { Giver } from "./takeover/giver.ts";
import { controlPath, TakeoverError } from "./takeover/messages.ts";
import { deviceRefusal, type SessionRecord } from "./takeover/session_record.ts";
import { Gift } from "./takeover/taker.ts";
import { makeDevice } from "./threads/make_device.ts";
import type { DeviceSource } from "./threads/messages.ts";
import { ThreadPool } from "./threads/thread_pool.ts";

export { SocketInUseError } from "../../ffi/listener.ts";

/** How {@link serve} serves. One of `socketPath` and `fd` is needed. */
export interface ServeOptions {
  /** Path of the Unix socket to listen on. A stale file there is replaced. */
  readonly socketPath?: string;
  /** A socket that this process was given: a listening one, or one that is connected to a front-end. Taken over. */
  readonly fd?: number;
  /** Permission bits of the socket file; 0o600 (the owner alone) by default. */
  readonly socketMode?: number;
  /** How much front-ends may use; `docs/limits.md` lists the bounds and their defaults. */
  readonly limits?: Partial<Limits>;
  /**
   * The users, by their ids, whose front-ends are served; anybody who can connect by default. It is the kernel that says who
   * connected (`SO_PEERCRED`); of a connected `fd`, who made the connection.
   */
  readonly allowUids?: readonly number[];
  /**
   * How long to keep looking at a ring that was just busy before sleeping, µs at the most; 50 by default. It adapts below
   * that. 0 sleeps at once. Holds for all devices of the process.
   */
  readonly pollUs?: number;
  /**
   * Runs the rings in so many worker threads (1 to 64) in place of the calling one, ring by ring to the next. Each has a
   * device of its own, made as {@link WorkerRules} say. The program must be allowed to read its own modules (Deno's
   * `--allow-read`), unless they are from the net.
   */
  readonly workers?: number;
  /** What the function is called with that a module given to {@link serve} exports. With workers: anything that can be cloned. */
  readonly deviceOptions?: unknown;
  /**
   * Offers ACCESS_PLATFORM, for guests whose driver addresses go through an IOMMU (QEMU's `iommu_platform=on`). Off by
   * default: a front-end that takes it without having an IOMMU would not work.
   */
  readonly iommu?: boolean;
  /**
   * Offers notifications as messages on the socket, for simulators such as User-Mode Linux. Off by default: QEMU takes
   * the feature without having it.
   */
  readonly inBandNotifications?: boolean;
  /**
   * Lets another process of the same user take over what is served here, so that a new version can go on with no front-end
   * noticing more than a pause. It is asked for on a socket beside the first, `<socketPath>.takeover`, with mode 0600.
   * `"take"` also takes over from the process that serves the path now, if there is one. Needs `socketPath`, and a
   * device that is `stateless` or has `state`. Not by default.
   */
  readonly takeover?: "allow" | "take";
  /** How long rings may stand still while they are handed over, ms; 5000 by default. Then the older process goes on. */
  readonly takeoverPatience?: number;
  /** Closes the server when it is aborted. */
  readonly signal?: AbortSignal;
  /** Where to write what happens; warnings and errors on the standard error output by default. */
  readonly log?: Log;
  /**
   * Measures how long requests take, for a sample of them, from the start on. {@link ServerMetrics.measuring} switches it at any
   * time.
   */
  readonly measure?: boolean;
  /** Called when a front-end has connected, before its first message is read: to look at what crosses the connection. */
  readonly onSession?: (session: Session) => void;
}

const ACCEPT_RETRY = 200;
/** After how many times it is told that a device is not ready: a second. */
const PATIENCE = 100;
/** How soon a device that is not ready is asked again, milliseconds. */
const READY_RETRY = 10;

/** What a server has taken over. */
export interface TakenOver {
  /** Process that served before. */
  readonly pid: number;
  /** Front-ends. */
  readonly sessions: number;
  /** How long their rings have stood still, ms. */
  readonly pause: number;
}

/** A device being served. */
export class Server {
  /**
   * Resolves when the server has closed, by {@link close}, because the front-end of a connected `fd` has left or because
   * another process has taken over, and the device has finished all requests.
   */
  readonly finished: Promise<void>;
  /** What was taken over from another process, if anything. */
  takenOver: TakenOver | undefined;
  /** What is counted. */
  readonly metrics: ServerMetrics;
  readonly #device: Device;
  readonly #options: ServeOptions;
  readonly #log: Log;
  readonly #reactor = Reactor.shared();
  readonly #threads: ThreadPool | undefined;
  readonly #sessions = new Set<Session>();
  readonly #limits: Limits;
  readonly #maxSessions: number;
  #listener = -1;
  #giver: Giver | undefined;
  #socketFile: Listener | undefined;
  /** A connected socket that waits for the device. */
  #waiting = -1;
  /** How often the device was not ready, one time after the other. */
  #notReady = 0;
  #paused = false;
  /** Whether another process may be taking over: nobody is accepted. */
  #held = false;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #closed = false;
  #finishing = false;
  #finish: () => void = () => {};

  /** Use {@link serve}. */
  constructor(device: Device, options: ServeOptions, threads?: ThreadPool, gift?: Gift) {
    const { socketPath, fd, socketMode = 0o600, signal, log = logToStderr } = options;
    this.#threads = threads;
    this.#device = device;
    this.#options = options;
    this.#log = log;
    this.#limits = limitsOf(options.limits);
    this.#maxSessions = device.definition.exclusive === true ? 1 : this.#limits.sessions;
    this.metrics = new ServerMetrics(device.name, socketPath ?? `fd:${fd}`, [
      { thread: "main", counters: this.#reactor.counters, breathe: (ms) => this.#reactor.breathe(ms) },
      ...threads?.metrics ?? [],
    ]);
    this.metrics.measuring = options.measure === true;
    this.finished = new Promise((resolve) => this.#finish = resolve);
    if (socketPath !== undefined) {
      this.#socketFile = gift === undefined
        ? new Listener(socketPath, socketMode)
        : new Listener(socketPath, { fd: gift.own(gift.listener) });
      this.#listener = this.#socketFile.fd;
    } else if (fd !== undefined) {
      setNonblocking(fd);
      if (isListening(fd)) this.#listener = fd;
      else this.#startConnected(fd);
    }
    try {
      if (socketPath !== undefined && options.takeover !== undefined) this.#allowTakeover(socketPath, gift);
    } catch (error) {
      this.#socketFile?.[gift === undefined ? "close" : "release"]();
      throw error;
    }
    if (this.#listener >= 0) this.#reactor.watch(this.#listener, () => this.#accept());
    if (gift !== undefined) this.#hold(true);
    if (signal?.aborted) this.close();
    signal?.addEventListener("abort", () => this.close(), { once: true });
  }

  /** Front-ends that are connected. */
  get sessions(): number {
    return this.#sessions.size;
  }

  #allowTakeover(socketPath: string, gift: Gift | undefined): void {
    const inherited = gift === undefined ? undefined : { fd: gift.own(gift.control) };
    const sessions = this.#sessions;
    this.#giver = new Giver(
      controlPath(socketPath),
      inherited,
      {
        device: this.#device.definition.type,
        name: this.#device.name,
        listener: this.#listener,
        refusal: deviceRefusal(this.#device.definition),
        sessions,
        pause: () => this.#hold(true),
        resume: () => this.#hold(false),
        given: (pid) => this.#given(pid),
      },
      this.#reactor,
      this.#log,
      this.#options.takeoverPatience,
    );
  }

  /**
   * Goes on with what another process serves.
   *
   * @throws {TakeoverError} when it cannot; the other process serves on, and this server is closed
   *
   * @ignore
   */
  async takeOver(gift: Gift): Promise<void> {
    try {
      // Its state would be another.
      const refusal = deviceRefusal(this.#device.definition);
      if (refusal !== undefined) throw new TakeoverError(refusal);
      for (const { fd, record } of gift.sessions) {
        await this.#startSession(gift.own(fd), record).restore(record);
      }
      const pause = await gift.take();
      this.takenOver = { pid: gift.pid, sessions: this.#sessions.size, pause };
    } catch (error) {
      this.#release();
      await this.finished;
      await gift.refuse(error);
      throw new TakeoverError(
        `cannot take over from process ${gift.pid}, which serves on: ${errorText(error)}`,
      );
    }
    for (const session of this.#sessions) session.thaw();
    this.#hold(false);
    this.#tell("info", "takeover.done", describeTakeover(this.takenOver));
  }

  #tell(level: LogLevel, event: LogEvent, text: string): void {
    const device = this.#device.name;
    this.#log(level, `${device}: ${text}`, undefined, { event, device });
  }

  #given(pid: number): void {
    this.#tell("info", "takeover.done", `process ${pid} has taken over`);
    this.#release();
  }

  /** Another process serves: lets go of all, without a trace for front-ends. */
  #release(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#giver?.release();
    this.#reactor.unwatch(this.#listener);
    this.#socketFile?.release();
    for (const session of [...this.#sessions]) session.release();
    this.#finishIfIdle();
  }

  /** Starts the one session of a connected socket. */
  #whenReady(fd: number): void {
    this.#waiting = fd;
    if (!this.#ready) {
      this.#retry = setTimeout(() => this.#whenReady(fd), READY_RETRY);
      return;
    }
    this.#waiting = -1;
    this.#startSession(fd);
  }

  /** Whether the device is ready; the first time that it is not is told. */
  get #ready(): boolean {
    const ready = this.#device.definition.ready?.() ?? true;
    if (ready) this.#notReady = 0;
    else if (++this.#notReady === PATIENCE) {
      this.#tell("warning", "device.not_ready", "not ready for a front-end; waiting");
    }
    return ready;
  }

  #accept(): void {
    try {
      while (this.#sessions.size < this.#maxSessions) {
        if (!this.#ready) {
          this.#pause();
          this.#retry = setTimeout(() => this.#resume(), READY_RETRY);
          return;
        }
        const fd = accept(this.#listener);
        if (fd === null) return;
        const refusal = this.#refusal(fd);
        if (refusal === undefined) {
          this.#startSession(fd);
        } else {
          close(fd);
          this.#tell("warning", "accept.refused", refusal);
        }
      }
      this.#pause();
    } catch (error) {
      // Out of descriptors, most likely: sessions that end will free some.
      this.#log("error", "cannot accept a front-end; trying again", error, {
        event: "accept.failed",
        device: this.#device.name,
      });
      this.#pause();
      this.#retry = setTimeout(() => this.#resume(), ACCEPT_RETRY);
    }
  }

  /** Why nobody who connected here is served. */
  #refusal(fd: number): string | undefined {
    const { allowUids } = this.#options;
    if (allowUids === undefined) return undefined;
    const { uid, pid } = peerCredentials(fd);
    if (allowUids.includes(uid)) return undefined;
    return `refused a front-end of user ${uid} (process ${pid}); allowed: ${
      allowUids.join(", ") || "nobody"
    }`;
  }

  #startConnected(fd: number): void {
    const refusal = this.#refusal(fd);
    if (refusal !== undefined) {
      close(fd);
      throw new Error(`serve: ${refusal}`);
    }
    this.#whenReady(fd);
  }

  #pause(): void {
    if (!this.#paused) this.#reactor.pause(this.#listener);
    this.#paused = true;
  }

  #hold(held: boolean): void {
    this.#held = held;
    if (held) this.#pause();
    else this.#resume();
  }

  #resume(): void {
    if (!this.#paused || this.#closed || this.#held) return;
    this.#paused = false;
    this.#reactor.resume(this.#listener);
  }

  #startSession(fd: number, record?: SessionRecord): Session {
    let session: Session;
    try {
      session = new Session(fd, this.#device, {
        reactor: this.#reactor,
        log: this.#log,
        number: this.metrics.sessionsOpened + 1,
        metrics: this.metrics,
        threads: this.#threads,
        iommu: this.#options.iommu,
        inBandNotifications: this.#options.inBandNotifications,
        limits: this.#limits,
        handover: this.#giver !== undefined,
        onEnd: () => {
          this.#sessions.delete(session);
          if (this.#closed) this.#finishIfIdle();
          else if (this.#listener >= 0) this.#resume();
          else this.close();
        },
      }, record);
    } catch (error) {
      close(fd);
      throw error;
    }
    this.#sessions.add(session);
    this.metrics.sessionsOpened++;
    if (record === undefined) {
      const device = this.#device.name;
      this.#log("info", `${device}: a front-end has connected`, undefined, {
        event: "session.connected",
        device,
        session: session.number,
      });
    }
    this.#options.onSession?.(session);
    return session;
  }

  /** Drops all front-ends, stops listening and removes the socket file. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#giver?.close();
    if (this.#listener >= 0) {
      this.#reactor.unwatch(this.#listener);
      if (this.#socketFile === undefined) close(this.#listener);
      else this.#socketFile.close();
    }
    if (this.#waiting >= 0) close(this.#waiting);
    for (const session of [...this.#sessions]) session.end();
    this.#finishIfIdle();
  }

  #finishIfIdle(): void {
    if (this.#sessions.size > 0 || this.#finishing) return;
    this.#finishing = true;
    if (this.#threads === undefined) this.#finish();
    else void this.#threads.end().then(this.#finish);
  }
}

/**
 * Serves a device to vhost-user front-ends: QEMU, libblkio, crosvm, DPDK and others. Returns when the socket is ready; the
 * process then stays alive, with a free event loop, until the server is closed.
 *
 * @example
 * ```ts
 * import { defineDevice, serve } from "@vhost/user";
 *
 * const rng = defineDevice({
 *   type: 4,
 *   queues: [(chain) => chain.write((bytes) => crypto.getRandomValues(bytes))],
 * });
 * const server = await serve(rng, { socketPath: `/tmp/rng-${crypto.randomUUID()}.sock` });
 * // … and when it is no longer needed:
 * server.close();
 * ```
 *
 * @example The same with its rings in two worker threads: the default export of `rng.ts` is the device
 * ```ts ignore
 * import { serve } from "@vhost/user";
 *
 * await serve(new URL("./rng.ts", import.meta.url), { socketPath: "/tmp/rng.sock", workers: 2 });
 * ```
 *
 * @param device a device; or the URL of a module whose default export is one, or a function that makes one. A device that
 * is made so is closed when the server has finished.
 * @throws {SocketInUseError} when another process listens on the path
 * @throws {OsError} when the socket cannot be made
 * @throws {TypeError} for options that do not go together
 * @throws {Error} when the front-end of a connected `fd` is not of `allowUids`
 */
export async function serve(device: Device | URL, options: ServeOptions): Promise<Server> {
  const { socketPath, fd, pollUs, workers, takeover } = options;
  if ((socketPath === undefined) === (fd === undefined)) {
    throw new TypeError("serve: give either socketPath or fd");
  }
  limitsOf(options.limits);
  if (takeover !== undefined && socketPath === undefined) {
    throw new TypeError("serve: takeover needs socketPath");
  }
  if (pollUs !== undefined) {
    if (!(pollUs >= 0 && pollUs <= 1_000_000)) {
      throw new RangeError(`pollUs must be 0 to 1000000, got ${pollUs}`);
    }
    Reactor.shared().pollCeiling = pollUs / 1000;
  }
  if (!(device instanceof URL)) return await start(device, undefined, options, workers);
  const source = { module: device.href, options: options.deviceOptions };
  const made = await makeDevice(source);
  try {
    const server = await start(made, source, options, workers);
    void server.finished.then(() => made.close());
    return server;
  } catch (error) {
    made.close();
    throw error;
  }
}

async function start(
  device: Device,
  source: DeviceSource | undefined,
  options: ServeOptions,
  workers: number | undefined,
): Promise<Server> {
  const { pollCeiling } = Reactor.shared();
  const threads = workers === undefined
    ? undefined
    : await ThreadPool.start(workers, device.name, device.definition, source, pollCeiling);
  let server: Server | undefined;
  try {
    // All is ready by now: rings stand still from here on.
    const gift = await ask(device, options);
    try {
      server = new Server(device, options, threads, gift);
    } catch (error) {
      await gift?.refuse(error);
      throw error;
    }
    if (gift !== undefined) await server.takeOver(gift);
    return server;
  } catch (error) {
    // A server ends its threads itself.
    if (server === undefined) await threads?.end();
    throw error;
  }
}

/** Asks the process that serves now, if that is wanted and there is one. */
async function ask(device: Device, options: ServeOptions): Promise<Gift | undefined> {
  const { takeover, takeoverPatience, socketPath } = options;
  if (takeover !== "take" || socketPath === undefined) return undefined;
  return await Gift.ask(
    controlPath(socketPath),
    device.definition.type,
    Reactor.shared(),
    takeoverPatience,
  );
}

/** What was taken over, for people. */
export function describeTakeover({ pid, sessions, pause }: TakenOver): string {
  const frontEnds = `${sessions} front-end${sessions === 1 ? "" : "s"}`;
  return `${frontEnds} taken over from process ${pid}; their rings stood still for ${pause.toFixed(1)} ms`;
}
