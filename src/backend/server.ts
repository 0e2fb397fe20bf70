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
import { type Log, logToStderr } from "./log.ts";
import { Session } from "./session.ts";
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
  /**
   * The users, by their ids, whose front-ends are served; anybody who can connect by default. It is the kernel that says who
   * connected (`SO_PEERCRED`); of a connected `fd`, who made the connection.
   */
  readonly allowUids?: readonly number[];
  /** The most front-ends at once; 64 by default, 1 for an exclusive device. Others wait in the socket's queue. */
  readonly maxSessions?: number;
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
  /** Closes the server when it is aborted. */
  readonly signal?: AbortSignal;
  /** Where to write what happens; warnings and errors on the standard error output by default. */
  readonly log?: Log;
  /** Called when a front-end has connected, before its first message is read: to look at what crosses the connection. */
  readonly onSession?: (session: Session) => void;
}

const ACCEPT_RETRY = 200;

/** A device being served. */
export class Server {
  /**
   * Resolves when the server has closed, by {@link close} or because the front-end of a connected `fd` has left, and the
   * device has finished all requests.
   */
  readonly finished: Promise<void>;
  readonly #device: Device;
  readonly #options: ServeOptions;
  readonly #log: Log;
  readonly #reactor = Reactor.shared();
  readonly #threads: ThreadPool | undefined;
  readonly #sessions = new Set<Session>();
  readonly #maxSessions: number;
  #listener = -1;
  #socketFile: Listener | undefined;
  #paused = false;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #closed = false;
  #finishing = false;
  #finish: () => void = () => {};

  /** Use {@link serve}. */
  constructor(device: Device, options: ServeOptions, threads?: ThreadPool) {
    const { socketPath, fd, socketMode = 0o600, signal, log = logToStderr } = options;
    this.#threads = threads;
    this.#device = device;
    this.#options = options;
    this.#log = log;
    this.#maxSessions = device.definition.exclusive === true ? 1 : options.maxSessions ?? 64;
    this.finished = new Promise((resolve) => this.#finish = resolve);
    if (socketPath !== undefined) {
      this.#socketFile = new Listener(socketPath, socketMode);
      this.#listener = this.#socketFile.fd;
    } else if (fd !== undefined) {
      setNonblocking(fd);
      if (isListening(fd)) this.#listener = fd;
      else this.#startConnected(fd);
    }
    if (this.#listener >= 0) this.#reactor.watch(this.#listener, () => this.#accept());
    if (signal?.aborted) this.close();
    signal?.addEventListener("abort", () => this.close(), { once: true });
  }

  /** Front-ends that are connected. */
  get sessions(): number {
    return this.#sessions.size;
  }

  #accept(): void {
    try {
      while (this.#sessions.size < this.#maxSessions) {
        const fd = accept(this.#listener);
        if (fd === null) return;
        const refusal = this.#refusal(fd);
        if (refusal === undefined) {
          this.#startSession(fd);
        } else {
          close(fd);
          this.#log("warning", `${this.#device.name}: ${refusal}`);
        }
      }
      this.#pause();
    } catch (error) {
      // Out of descriptors, most likely: sessions that end will free some.
      this.#log("error", "cannot accept a front-end; trying again", error);
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
    this.#startSession(fd);
  }

  #pause(): void {
    if (!this.#paused) this.#reactor.pause(this.#listener);
    this.#paused = true;
  }

  #resume(): void {
    if (!this.#paused || this.#closed) return;
    this.#paused = false;
    this.#reactor.resume(this.#listener);
  }

  #startSession(fd: number): void {
    let session: Session;
    try {
      session = new Session(fd, this.#device, {
        reactor: this.#reactor,
        log: this.#log,
        threads: this.#threads,
        iommu: this.#options.iommu,
        inBandNotifications: this.#options.inBandNotifications,
        onEnd: () => {
          this.#sessions.delete(session);
          if (this.#closed) this.#finishIfIdle();
          else if (this.#listener >= 0) this.#resume();
          else this.close();
        },
      });
    } catch (error) {
      close(fd);
      throw error;
    }
    this.#sessions.add(session);
    this.#log("info", `${this.#device.name}: a front-end has connected`);
    this.#options.onSession?.(session);
  }

  /** Drops all front-ends, stops listening and removes the socket file. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retry);
    if (this.#listener >= 0) {
      this.#reactor.unwatch(this.#listener);
      if (this.#socketFile === undefined) close(this.#listener);
      else this.#socketFile.close();
    }
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
  const { socketPath, fd, pollUs, workers } = options;
  if ((socketPath === undefined) === (fd === undefined)) {
    throw new TypeError("serve: give either socketPath or fd");
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
  if (workers === undefined) return new Server(device, options);
  const { pollCeiling } = Reactor.shared();
  const threads = await ThreadPool.start(workers, device.name, device.definition, source, pollCeiling);
  try {
    return new Server(device, options, threads);
  } catch (error) {
    await threads.end();
    throw error;
  }
}
