/**
 * The host's side as Unix sockets, in the convention of Firecracker and cloud-hypervisor.
 *
 * @module
 */

import { close, readBytes, writeBytes } from "../../../ffi/fd.ts";
import { Listener } from "../../../ffi/listener.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import { accept, connect, MAX_SOCKET_PATH, setSendBuffer, type SocketKind } from "../../../ffi/socket.ts";
import type { Circuit } from "./circuit.ts";
import { VsockType } from "./layout.ts";
import { UnixEnd } from "./unix_end.ts";

/** Clients that may wait to be accepted. */
const BACKLOG = 128;
/** How long to wait when there are no descriptors, ms. */
const RETRY = 200;
/** More than the longest line that asks for a connection: `CONNECT 4294967295\n`. */
const LINE = 32;
/** The longest ending of a socket's path. */
const LONGEST_ENDING = "_4294967295";

/** What the sockets need of their device. */
export interface UnixSocketsOptions {
  /** The path: where the host connects to the guest, and what the other paths begin with. */
  readonly path: string;
  /** Permission bits of the socket files. */
  readonly mode: number;
  /** The most clients that have not said yet which port they want. */
  readonly maxClients: number;
  /** Bytes that are kept of a connection. */
  readonly bufferSize: number;
  /** Opens a connection to a port of the guest. */
  open(type: number, port: number): Circuit | undefined;
  /** Told of what goes wrong. */
  readonly onError: (error: unknown) => void;
}

/**
 * The sockets of one guest. A program of the host connects to `PATH` and says `CONNECT PORT`; it reads `OK` and a port, and
 * then what the guest sends. When the guest connects to a port of the host, that is a connection to `PATH_PORT`. Seqpacket
 * connections go the same ways over sockets of the kind SOCK_SEQPACKET, the first to `PATH_seqpacket`.
 */
export class UnixSockets {
  readonly #options: UnixSocketsOptions;
  readonly #reactor = Reactor.shared();
  readonly #listeners: Listener[] = [];
  readonly #clients = new Set<number>();
  readonly #retries = new Map<number, ReturnType<typeof setTimeout>>();

  /**
   * Starts to listen.
   *
   * @throws {SocketInUseError} when another process does
   * @throws {OsError} when it cannot
   */
  constructor(options: UnixSocketsOptions) {
    this.#options = options;
    const longest = new TextEncoder().encode(options.path + LONGEST_ENDING).length;
    if (longest > MAX_SOCKET_PATH) {
      throw new RangeError(
        `${options.path}: with _PORT behind it, a socket path may have ${MAX_SOCKET_PATH} bytes, this has ${longest}`,
      );
    }
    try {
      this.#listen(options.path, "stream");
      this.#listen(`${options.path}_seqpacket`, "seqpacket");
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #listen(path: string, kind: SocketKind): void {
    const listener = new Listener(path, this.#options.mode, kind, BACKLOG);
    this.#listeners.push(listener);
    this.#reactor.watch(listener.fd, () => this.#accept(listener, kind));
  }

  #accept(listener: Listener, kind: SocketKind): void {
    try {
      for (let fd = accept(listener.fd); fd !== null; fd = accept(listener.fd)) this.#greet(fd, kind);
    } catch (error) {
      // There are no descriptors left. The client waits, and so must we: it would be announced over and over.
      this.#options.onError(error);
      this.#reactor.pause(listener.fd);
      this.#retries.set(listener.fd, setTimeout(() => this.#reactor.resume(listener.fd), RETRY));
    }
  }

  /** Waits for a client to say what it wants. */
  #greet(fd: number, kind: SocketKind): void {
    if (this.#clients.size >= this.#options.maxClients) return close(fd);
    this.#clients.add(fd);
    let text = "";
    this.#reactor.watch(fd, () => {
      let bytes: Uint8Array<ArrayBuffer> | null;
      try {
        bytes = readBytes(fd, LINE);
      } catch {
        return this.#dismiss(fd);
      }
      if (bytes === null) return;
      // One character for each byte, so that what follows the line is kept as it is.
      for (const byte of bytes) text += String.fromCharCode(byte);
      const end = text.indexOf("\n");
      if (end < 0 && (bytes.length === 0 || text.length >= LINE)) return this.#dismiss(fd);
      if (end < 0) return;
      const port = portOf(text.slice(0, end));
      if (port < 0) return this.#dismiss(fd);
      const early = Uint8Array.from(text.slice(end + 1), (each) => each.charCodeAt(0));
      this.#open(fd, kind, port, early);
    });
  }

  #release(fd: number): void {
    this.#clients.delete(fd);
    this.#reactor.unwatch(fd);
  }

  #dismiss(fd: number): void {
    this.#release(fd);
    close(fd);
  }

  #open(fd: number, kind: SocketKind, port: number, early: Uint8Array): void {
    const circuit = this.#options.open(VsockType[kind === "stream" ? "STREAM" : "SEQPACKET"], port);
    if (circuit === undefined) return this.#dismiss(fd);
    this.#release(fd);
    const tell = (end: UnixEnd): boolean => {
      try {
        const answer = new TextEncoder().encode(`OK ${circuit.hostPort}\n`);
        return writeBytes(end.fd, answer) === answer.length;
      } catch {
        return false; // It has left.
      }
    };
    setSendBuffer(fd, this.#options.bufferSize);
    new UnixEnd(circuit, fd, this.#options.onError, tell, early);
    circuit.request();
  }

  /** Connects to the socket of the port that a guest wants. Returns whether there is one. */
  accept(circuit: Circuit): boolean {
    const path = `${this.#options.path}_${circuit.hostPort}`;
    let fd: number;
    try {
      fd = connect(path, circuit.seqpacket ? "seqpacket" : "stream");
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      // Nobody listens. Anything else is worth a word.
      if (error.errno !== Errno.ENOENT && error.errno !== Errno.ECONNREFUSED) this.#options.onError(error);
      return false;
    }
    setSendBuffer(fd, this.#options.bufferSize);
    new UnixEnd(circuit, fd, this.#options.onError);
    circuit.accept();
    return true;
  }

  /** Stops listening and removes the socket files. Connections go on. */
  close(): void {
    for (const timer of this.#retries.values()) clearTimeout(timer);
    for (const fd of [...this.#clients]) this.#dismiss(fd);
    for (const listener of this.#listeners.splice(0)) {
      this.#reactor.unwatch(listener.fd);
      listener.close();
    }
  }
}

/** The port that a line asks for; -1 for any other line. */
function portOf(line: string): number {
  const found = /^CONNECT +(\d{1,10})\r?$/i.exec(line);
  const port = found === null ? -1 : Number(found[1]);
  return port <= 0xffff_ffff ? port : -1;
}
