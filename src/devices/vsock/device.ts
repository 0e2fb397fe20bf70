/**
 * The socket device.
 *
 * @module
 */

import { Device } from "../../backend/device.ts";
import { logToStderr } from "../../backend/log.ts";
import { mask } from "../../protocol/features.ts";
import { type Circuit, VsockError } from "./circuit.ts";
import { VsockCounters } from "./counters.ts";
import { findGuest, joinGroups, leaveGroups, type Member, type VsockGroup } from "./group.ts";
import { VsockGuest } from "./guest.ts";
import { join } from "./guest_end.ts";
import { HOST_CID, MAX_GUEST_CID, MIN_GUEST_CID, vsockFeatures, VsockType } from "./layout.ts";
import { ProgramEnd, type VsockConnection } from "./program_end.ts";
import { UnixSockets } from "./unix_sockets.ts";
import { vsockRequests } from "./request_format.ts";

/** Takes a connection of a guest. May return a promise; when it fails, the connection is reset. */
export type VsockListener = (connection: VsockConnection) => unknown;

/** What a socket device is made of. */
export interface VsockOptions {
  /** The guest's CID, 3 to 2^32 - 2. No other guest of the machine or the group may have it. */
  readonly guestCid: number;
  /**
   * Path of Unix sockets for programs of the host, in the convention of Firecracker and cloud-hypervisor: they connect to
   * this path and say `CONNECT PORT\n` to reach the guest, and listen on `PATH_PORT` to be reached. None by default.
   */
  readonly unixPath?: string;
  /** Permission bits of the socket file; 0o600 (the owner alone) by default. */
  readonly unixMode?: number;
  /** What this program listens on, by port of the host. Comes before Unix sockets. */
  readonly listen?: Readonly<Record<number, VsockListener>>;
  /** Guests that this one may connect to, and that may connect to it. None by default. */
  readonly groups?: readonly VsockGroup[];
  /**
   * Bytes that are kept of each connection while nobody takes them, and so what the guest may have under way; 256 KiB by
   * default. The longest message of a seqpacket connection has as many.
   */
  readonly bufferSize?: number;
  /** The most connections, 1024 by default. With `bufferSize` this bounds the memory that a guest can take. */
  readonly maxConnections?: number;
  /** How long the guest may take to accept a connection, ms; 5000 by default. */
  readonly connectTimeout?: number;
  /** Told of what goes wrong with a connection. Says so on the standard error output by default. */
  readonly onError?: (error: unknown) => void;
}

/** How {@link VsockDevice.dial} connects. */
export interface DialOptions {
  /** `stream` by default. */
  readonly type?: "stream" | "seqpacket";
}

function inRange(name: string, value: number, least: number, most: number): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(`${name} must be ${least} to ${most}, got ${value}`);
}

/** Messages about errors: at most one in this time, ms. */
const QUIET = 10_000;
const MAX_PORT = 0xffff_fffe;

/**
 * Sockets between a guest and its host (virtio device 19), for one front-end at a time.
 *
 * @example A service for the guest, and a connection to one of the guest's
 * ```ts
 * import { serve } from "@vhost/user";
 * import { VsockDevice } from "@vhost/user/devices/vsock";
 *
 * const device = new VsockDevice({
 *   guestCid: 3,
 *   listen: {
 *     1234: (connection) => connection.readable.pipeTo(connection.writable),
 *   },
 * });
 * const server = await serve(device, { socketPath: `/tmp/vsock-${crypto.randomUUID()}.sock` });
 * async function ask(question: string): Promise<string> {
 *   const { readable, writable } = await device.dial(5000);
 *   await new Blob([question]).stream().pipeTo(writable);
 *   return await new Response(readable).text();
 * }
 * // … and when it is no longer needed:
 * server.close();
 * device.close();
 * ```
 */
export class VsockDevice extends Device {
  /** The guest's CID. */
  readonly guestCid: number;
  /** What has passed. */
  readonly counters: VsockCounters;
  readonly #own: Own;

  /**
   * A device with its Unix sockets, if any, listening.
   *
   * @throws {RangeError} for options that cannot be
   * @throws {SocketInUseError} when another process listens on the path
   * @throws {OsError} when the socket cannot be made
   */
  constructor(options: VsockOptions) {
    const guestCid = inRange("guestCid", options.guestCid, MIN_GUEST_CID, MAX_GUEST_CID);
    const counters = new VsockCounters();
    const own = new Own(options, counters);
    super({
      type: 19,
      name: `vsock ${guestCid}`,
      requests: vsockRequests,
      features: mask(vsockFeatures.STREAM, vsockFeatures.SEQPACKET),
      exclusive: true,
      connect: () => own.connect(),
    });
    this.guestCid = guestCid;
    this.counters = counters;
    this.#own = own;
  }

  /** Whether a driver is there. */
  get running(): boolean {
    return this.#own.guest?.running === true;
  }

  /**
   * Connects to a port of the guest.
   *
   * @throws {VsockError} ENETUNREACH when no driver is there, ECONNREFUSED when the guest refuses, ETIMEDOUT when it does not
   *   answer, ENOBUFS when there are too many connections, ECONNRESET when it leaves meanwhile
   */
  dial(port: number, options: DialOptions = {}): Promise<VsockConnection> {
    return this.#own.dial(port, options);
  }

  /**
   * Listens on a port of the host.
   *
   * @returns a function that ends that; connections stay
   * @throws {RangeError} when the port is listened on already
   */
  listen(port: number, listener: VsockListener): () => void {
    return this.#own.listen(port, listener);
  }

  /** Closes the Unix sockets and leaves the groups. Connections stay until the front-end leaves. */
  override close(): void {
    this.#own.close();
  }
}

/** What a device has of its own, apart from what it is to front-ends. */
class Own implements Member {
  readonly guestCid: number;
  guest: VsockGuest | undefined;
  readonly #options: VsockOptions;
  readonly #groups: readonly VsockGroup[];
  readonly #counters: VsockCounters;
  readonly #listeners = new Map<number, VsockListener>();
  readonly #sockets: UnixSockets | undefined;
  readonly #cut = { pending: false };
  readonly #bufferSize: number;
  readonly #maxConnections: number;
  readonly #connectTimeout: number;
  #lastError = -Infinity;

  constructor(options: VsockOptions, counters: VsockCounters) {
    this.#options = options;
    this.#groups = options.groups ?? [];
    this.guestCid = options.guestCid;
    this.#counters = counters;
    this.#bufferSize = inRange("bufferSize", options.bufferSize ?? 1 << 18, 1 << 12, 1 << 30);
    this.#maxConnections = inRange("maxConnections", options.maxConnections ?? 1024, 1, 1 << 20);
    this.#connectTimeout = inRange("connectTimeout", options.connectTimeout ?? 5000, 1, 1 << 30);
    for (const [port, listener] of Object.entries(options.listen ?? {})) this.listen(Number(port), listener);
    const { unixPath, unixMode = 0o600 } = options;
    this.#sockets = unixPath === undefined ? undefined : new UnixSockets({
      path: unixPath,
      mode: unixMode,
      maxClients: this.#maxConnections,
      bufferSize: this.#bufferSize,
      open: (type, port) => {
        const opened = this.#open(type, port);
        return opened instanceof VsockError ? undefined : opened;
      },
      onError: (error) => this.#say(error),
    });
    try {
      joinGroups(this.#groups, this);
    } catch (error) {
      this.#sockets?.close();
      throw error;
    }
  }

  #say(error: unknown): void {
    const tell = this.#options.onError ??
      ((error) => logToStderr("warning", `vsock ${this.guestCid}: a connection failed`, error));
    // A guest may be able to cause one with every connection.
    const now = performance.now();
    if (now - this.#lastError < QUIET) return;
    this.#lastError = now;
    tell(error);
  }

  close(): void {
    leaveGroups(this.#groups, this);
    this.#sockets?.close();
  }

  connect(): VsockGuest {
    return this.guest = new VsockGuest({
      guestCid: this.guestCid,
      bufferSize: this.#bufferSize,
      maxConnections: this.#maxConnections,
      counters: this.#counters,
      cut: this.#cut,
      accept: (circuit) => this.#accept(circuit),
      left: (guest) => {
        if (this.guest === guest) this.guest = undefined;
      },
    });
  }

  listen(port: number, listener: VsockListener): () => void {
    inRange("port", port, 0, MAX_PORT);
    if (this.#listeners.has(port)) throw new RangeError(`port ${port} is listened on already`);
    this.#listeners.set(port, listener);
    return () => {
      if (this.#listeners.get(port) === listener) this.#listeners.delete(port);
    };
  }

  async dial(port: number, { type = "stream" }: DialOptions): Promise<VsockConnection> {
    inRange("port", port, 0, MAX_PORT);
    const circuit = this.#open(type === "stream" ? VsockType.STREAM : VsockType.SEQPACKET, port);
    if (circuit instanceof VsockError) throw circuit;
    const end = new ProgramEnd(circuit, this.guestCid);
    circuit.request();
    return await end.accepted;
  }

  /** A connection that is to be asked for, unless there is nobody to ask. */
  #open(type: number, port: number): Circuit | VsockError {
    const { guest } = this;
    if (guest === undefined || !guest.running) {
      return new VsockError("ENETUNREACH", `the guest ${this.guestCid} has no driver running`);
    }
    if (!guest.knows(type)) return new VsockError("ECONNREFUSED", "the guest's driver knows no seqpacket");
    const circuit = guest.open(type, port, HOST_CID);
    if (circuit === undefined) {
      return new VsockError("ENOBUFS", `there are ${this.#maxConnections} connections`);
    }
    this.#expire(circuit);
    return circuit;
  }

  #expire(circuit: Circuit): void {
    const timer = setTimeout(() => circuit.expire(), this.#connectTimeout);
    circuit.settled = () => clearTimeout(timer);
  }

  #accept(circuit: Circuit): boolean {
    if (circuit.hostCid !== HOST_CID) return this.#acceptFor(circuit);
    const listener = this.#listeners.get(circuit.hostPort);
    if (listener === undefined) return this.#sockets?.accept(circuit) ?? false;
    const end = new ProgramEnd(circuit, this.guestCid);
    circuit.accept();
    void this.#hand(end, listener);
    return true;
  }

  async #hand(end: ProgramEnd, listener: VsockListener): Promise<void> {
    try {
      await listener(end);
    } catch (error) {
      // A guest that leaves in the middle is no mistake of the program's.
      if (!(error instanceof VsockError)) this.#say(error);
      end.reset();
    }
  }

  /** The guest wants another guest. */
  #acceptFor(circuit: Circuit): boolean {
    const guest = findGuest(this.#groups, circuit.hostCid);
    if (guest === undefined || !guest.running || !guest.knows(circuit.type)) return false;
    const other = guest.open(circuit.type, circuit.hostPort, this.guestCid, circuit.guestPort);
    if (other === undefined) return false;
    join(circuit, other);
    this.#expire(other);
    other.request();
    return true;
  }
}
