/**
 * Ends: a Unix socket, a pseudo-terminal, this process's own terminal, a log file.
 *
 * @module
 */

import { close, isNonblocking, setNonblocking } from "../../../ffi/fd.ts";
import { openFile, OpenFlag, removeFile } from "../../../ffi/file.ts";
import { Iovec } from "../../../ffi/iovec.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import { accept, hasLeft, listen } from "../../../ffi/socket.ts";
import {
  isPtyInUse,
  isTerminal,
  makeRaw,
  openPty,
  type Pty,
  restoreTerminal,
  terminalSize,
} from "../../../ffi/terminal.ts";
import { writePieces } from "../../../ffi/vector_io.ts";
import type { ConsoleEnd, OutputData, PortLink } from "./end.ts";
import { PeerEnd } from "./peer_end.ts";

/** How often a peer is looked for, or whether it is still there, ms. */
const LOOK = 200;

/** How a {@link UnixEnd} listens. */
export interface UnixEndOptions {
  /** Path of the Unix socket to listen on. */
  readonly path: string;
  /** Permission bits of the socket file; 0o600 by default. */
  readonly mode?: number;
}

/** A Unix socket that programs connect to, one at a time: `socat - UNIX-CONNECT:PATH`. */
export class UnixEnd extends PeerEnd {
  readonly #path: string;
  readonly #listener: number;
  readonly #reactor = Reactor.shared();
  #fd = -1;
  #timer: ReturnType<typeof setInterval> | undefined;

  /**
   * Listens; the socket file is removed by {@link close}.
   *
   * @throws {OsError} EADDRINUSE when the path exists
   */
  constructor({ path, mode }: UnixEndOptions) {
    super();
    this.#path = path;
    this.#listener = listen(path, mode);
  }

  /** Accepts peers. */
  protected override opened(): void {
    this.#reactor.watch(this.#listener, () => this.#accept());
  }

  #accept(): void {
    const fd = accept(this.#listener);
    if (fd === null) return;
    // Others wait in the socket's queue.
    this.#reactor.pause(this.#listener);
    this.#fd = fd;
    this.connect(fd, fd, {
      ended: () => this.#halfClosed(),
      failed: () => this.#lost(),
    });
  }

  /** The peer sends no more; it may still read. */
  #halfClosed(): void {
    if (hasLeft(this.#fd)) return this.#lost();
    this.#timer = setInterval(() => {
      if (hasLeft(this.#fd)) this.#lost();
    }, LOOK);
  }

  #lost(): void {
    if (this.#fd < 0) return;
    clearInterval(this.#timer);
    const fd = this.#fd;
    this.#fd = -1;
    this.disconnect();
    close(fd);
    this.#reactor.resume(this.#listener);
  }

  /** {@link ConsoleEnd.close}. */
  close(): void {
    this.#lost();
    this.#reactor.unwatch(this.#listener);
    close(this.#listener);
    removeFile(this.#path);
  }
}

/** A pseudo-terminal that programs open, such as `screen` or `minicom`. */
export class PtyEnd extends PeerEnd {
  readonly #pty: Pty;
  #timer: ReturnType<typeof setInterval> | undefined;

  /**
   * Makes one.
   *
   * @throws {OsError}
   */
  constructor() {
    super();
    this.#pty = openPty();
  }

  /** Where programs find it. */
  get path(): string {
    return this.#pty.path;
  }

  /** Looks for a peer: of one that opens the other side nobody is told. */
  protected override opened(): void {
    this.#timer = setInterval(() => {
      if (isPtyInUse(this.#pty.fd)) this.#found();
    }, LOOK);
  }

  #found(): void {
    clearInterval(this.#timer);
    const { fd } = this.#pty;
    const lost = () => {
      this.disconnect();
      this.opened();
    };
    // Reading fails with EIO once nobody has the other side open.
    this.connect(fd, fd, { ended: lost, failed: lost });
  }

  /** {@link ConsoleEnd.close}. */
  close(): void {
    clearInterval(this.#timer);
    this.disconnect();
    close(this.#pty.fd);
  }
}

/** What ends a session at the terminal: Ctrl-]. */
const ESCAPE = 0x1d;

/** How a {@link StdioEnd} behaves. */
export interface StdioEndOptions {
  /** Descriptor to read; 0 by default. Stays the caller's. */
  readonly input?: number;
  /** Descriptor to write; 1 by default. Stays the caller's. */
  readonly output?: number;
  /** Called when Ctrl-] is typed at a terminal. The guest gets it as well. */
  readonly onEscape?: () => void;
}

/**
 * The standard input and output of this process. A terminal is switched to raw: every key goes to the guest, Ctrl-C too, and
 * the guest's terminal has its size.
 */
export class StdioEnd extends PeerEnd {
  readonly #input: number;
  readonly #output: number;
  readonly #onEscape: (() => void) | undefined;
  readonly #before: Uint8Array | undefined;
  readonly #wasNonblocking: readonly boolean[];
  #port: PortLink | undefined;

  /**
   * Takes the terminal over.
   *
   * @throws {OsError} for descriptors that are not open
   */
  constructor({ input = 0, output = 1, onEscape }: StdioEndOptions = {}) {
    super();
    this.#input = input;
    this.#output = output;
    this.#onEscape = onEscape;
    this.#wasNonblocking = [input, output].map(isNonblocking);
    this.#before = isTerminal(input) ? makeRaw(input) : undefined;
    for (const fd of [input, output]) setNonblocking(fd);
  }

  /** {@link ConsoleEnd.attach}. */
  override attach(port: PortLink): void {
    this.#port = port;
    super.attach(port);
    this.sizeChanged();
  }

  /** Tells the guest the size of the terminal; to be called on SIGWINCH. */
  sizeChanged(): void {
    const size = terminalSize(this.#output);
    if (size !== undefined) this.#port?.resize(size.columns, size.rows);
  }

  /** The peer is there. */
  protected override opened(): void {
    this.connect(this.#input, this.#output, {
      // The end of the input is not the end of the output.
      ended: () => {},
      failed: () => this.disconnect(),
      look: this.#before === undefined ? undefined : (bytes) => {
        if (bytes.includes(ESCAPE)) this.#onEscape?.();
      },
    });
  }

  /** {@link ConsoleEnd.close}: the terminal is as it was. */
  close(): void {
    this.disconnect();
    if (this.#before !== undefined) restoreTerminal(this.#input, this.#before);
    [this.#input, this.#output].forEach((fd, i) => setNonblocking(fd, this.#wasNonblocking[i]));
  }
}

/** A file that bytes are added to. */
class LogFile {
  readonly #path: string;
  readonly #fd: number;
  readonly #iovec = new Iovec();

  constructor(path: string) {
    this.#path = path;
    this.#fd = openFile(path, OpenFlag.WRITE_ONLY | OpenFlag.CREATE | OpenFlag.APPEND, 0o644);
  }

  /** Adds bytes; waits for the file system. */
  add(data: OutputData, from: number, to: number): void {
    for (let at = from; at < to;) {
      this.#iovec.clear();
      data.toIovec(this.#iovec, at, to - at);
      const length = writePieces(this.#fd, this.#iovec);
      if (length <= 0) throw new Error(`${this.#path} takes no more`);
      at += length;
    }
  }

  close(): void {
    close(this.#fd);
  }
}

/** A file with all that the guest has written; there is no input. */
export class LogEnd implements ConsoleEnd {
  readonly #file: LogFile;
  readonly #onError: (error: unknown) => void;

  /**
   * Opens the file, to add to it.
   *
   * @param onError told when it cannot be written; what it does not take is lost
   * @throws {OsError}
   */
  constructor(path: string, onError: (error: unknown) => void = () => {}) {
    this.#file = new LogFile(path);
    this.#onError = onError;
  }

  /** {@link ConsoleEnd.attach}. */
  attach(port: PortLink): void {
    port.connected(true);
  }

  /** {@link ConsoleEnd.output}. */
  output(data: OutputData, from: number): number {
    try {
      this.#file.add(data, from, data.byteLength);
    } catch (error) {
      this.#onError(error);
    }
    return data.byteLength - from;
  }

  /** {@link ConsoleEnd.refilled}. */
  refilled(): void {}

  /** {@link ConsoleEnd.close}. */
  close(): void {
    this.#file.close();
  }
}

/** An end, and a file with all that it has taken from the guest. */
export class LoggedEnd implements ConsoleEnd {
  readonly #end: ConsoleEnd;
  readonly #file: LogFile;
  readonly #onError: (error: unknown) => void;

  /**
   * Opens the file, to add to it.
   *
   * @param end is closed with this
   * @param onError told when the file cannot be written
   * @throws {OsError}
   */
  constructor(end: ConsoleEnd, path: string, onError: (error: unknown) => void = () => {}) {
    this.#end = end;
    this.#file = new LogFile(path);
    this.#onError = onError;
  }

  /** {@link ConsoleEnd.attach}. */
  attach(port: PortLink): void {
    this.#end.attach(port);
  }

  /** {@link ConsoleEnd.output}. */
  output(data: OutputData, from: number): number {
    const taken = this.#end.output(data, from);
    try {
      this.#file.add(data, from, from + taken);
    } catch (error) {
      this.#onError(error);
    }
    return taken;
  }

  /** {@link ConsoleEnd.refilled}. */
  refilled(): void {
    this.#end.refilled();
  }

  /** {@link ConsoleEnd.close}. */
  close(): void {
    this.#end.close?.();
    this.#file.close();
  }
}

/** An end that takes everything and says nothing. */
export class NullEnd implements ConsoleEnd {
  /** {@link ConsoleEnd.attach}. */
  attach(port: PortLink): void {
    port.connected(true);
  }

  /** {@link ConsoleEnd.output}. */
  output(data: OutputData, from: number): number {
    return data.byteLength - from;
  }

  /** {@link ConsoleEnd.refilled}. */
  refilled(): void {}
}
