/**
 * The back-end under test: how to reach it, and whether it lives.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import { close, fileStatus } from "../../../ffi/fd.ts";
import { openFile, OpenFlag, removeFile } from "../../../ffi/file.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import { signalGroup, SignalNumber } from "../../../ffi/process_group.ts";
import { connect, peerCredentials } from "../../../ffi/socket.ts";
import { frontendMessages } from "../../protocol/messages.ts";
import { sleep, until } from "./wait.ts";
import { Wire } from "./wire.ts";

/** How long a back-end may take from its start until it listens, ms. */
const STARTUP = 10_000;
/** How long it is given to leave by itself when its front-end has left, ms. */
const LEAVING = 500;
/** Output of the back-end that is kept, characters. */
const KEPT = 4096;

/** A back-end that cannot be reached at all. */
export class TargetError extends Error {
  /** The error's class name. */
  override readonly name = "TargetError";
}

/** How a back-end died. */
export interface Death {
  /** In words. */
  readonly how: string;
  /** Whether it ended by its own decision. */
  readonly orderly: boolean;
}

/** A back-end to be checked. */
export interface Target {
  /** Its socket. */
  readonly socketPath: string;
  /** Process that listens, when it is on this machine. */
  readonly pid: number | undefined;
  /** Whether it serves one front-end and then leaves. */
  readonly oneShot: boolean;
  /** What it has written lately, when that can be known. */
  readonly output: string;
  /**
   * A new connection. The caller owns the descriptor.
   *
   * @throws {TargetError}
   */
  connect(): Promise<number>;
  /**
   * After all connections are closed: whether it is ready for the next front-end.
   *
   * @returns how it died, or `undefined` when it is well
   */
  settle(): Promise<Death | undefined>;
  /** Whether a dead one can be made anew. */
  readonly restarts: boolean;
  /** Lets go of it; one that was started here is stopped. */
  close(): Promise<void>;
}

/** Connects, again and again while nobody listens. */
async function connectWithin(path: string, ms: number, goOn: () => boolean = () => true): Promise<number> {
  let last: unknown;
  const fd = await until(() => {
    try {
      return connect(path);
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      last = error;
      const waiting = [Errno.ENOENT, Errno.ECONNREFUSED, Errno.EAGAIN] as readonly number[];
      return waiting.includes(error.errno) && goOn() ? undefined : -1;
    }
  }, ms);
  if (fd !== undefined && fd >= 0) return fd;
  throw new TargetError(last instanceof Error ? last.message : String(last));
}

/** How often a connection is made anew that the back-end closes at once, and after how long, ms. */
const ATTEMPTS = 10;
const PAUSE = 20;

/**
 * A connection on which GET_FEATURES was answered. Some back-ends listen anew for each front-end: who comes too early finds
 * the old socket, and is turned away.
 *
 * @param dial makes a connection
 * @returns the connection, or what is wrong with the back-end
 */
export async function greet(
  dial: () => Promise<number>,
  wireOf: (fd: number) => Wire,
): Promise<Wire | string> {
  for (let attempt = 1;; attempt++) {
    const wire = wireOf(await dial());
    await wire.say(frontendMessages.GET_FEATURES.id, new Uint8Array(0));
    const answer = await wire.next();
    if (typeof answer !== "string") {
      answer.fds.close();
      wire.greeting = answer.payload;
      return wire;
    }
    wire.close();
    if (answer === "nothing") return "it does not answer a new front-end";
    if (attempt === ATTEMPTS) return "it closes the connection of a new front-end";
    await sleep(PAUSE);
  }
}

/** Whether a new front-end is answered. Returns what is wrong. */
async function greets(
  path: string,
  patience: number,
  alive: () => boolean = () => true,
): Promise<string | undefined> {
  try {
    const dial = () => connectWithin(path, patience, alive);
    const wire = await greet(dial, (fd) => new Wire(fd, patience));
    if (typeof wire === "string") return wire;
    wire.close();
    return undefined;
  } catch (error) {
    if (error instanceof TargetError) return "it no longer accepts connections";
    throw error;
  }
}

/** Descriptors that a process has open, or `undefined` where that cannot be seen (Linux before 6.2, another user). */
export function openDescriptors(pid: number): number | undefined {
  try {
    const fd = openFile(`/proc/${pid}/fd`, OpenFlag.PATH_ONLY);
    try {
      return fileStatus(fd).size || undefined;
    } finally {
      close(fd);
    }
  } catch (error) {
    if (error instanceof OsError) return undefined;
    throw error;
  }
}

/** A back-end that somebody else has started. */
export class RunningTarget implements Target {
  /** Its socket. */
  readonly socketPath: string;
  /** Always false. */
  readonly oneShot = false;
  /** Always false. */
  readonly restarts = false;
  /** Always empty. */
  readonly output = "";
  readonly #patience: number;
  #pid: number | undefined;

  /** Looks at it when a connection is made. */
  constructor(socketPath: string, patience: number) {
    this.socketPath = socketPath;
    this.#patience = patience;
  }

  /** Process that listens. */
  get pid(): number | undefined {
    return this.#pid;
  }

  /** A new connection. */
  async connect(): Promise<number> {
    const fd = await connectWithin(this.socketPath, this.#patience);
    this.#pid = peerCredentials(fd).pid || undefined;
    return fd;
  }

  /** Whether it answers a new front-end. */
  async settle(): Promise<Death | undefined> {
    const how = await greets(this.socketPath, this.#patience);
    return how === undefined ? undefined : { how, orderly: false };
  }

  /** Leaves it alone. */
  async close(): Promise<void> {}
}

/** How a process ended, when that was not its own wish. A shell tells of a signal by a status above 128. */
function crash(code: number | null, signal: string | null): string | undefined {
  const number = code === null || code <= 128 ? undefined : code - 128;
  const name = signal ?? Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
  if (name !== undefined) return `its process was ended by ${name}`;
  // What Rust ends with after a panic.
  return code === 101 ? "its process panicked (status 101)" : undefined;
}

/** A back-end that is started here, and again when it has ended. */
export class SpawnedTarget implements Target {
  /** Its socket. */
  readonly socketPath: string;
  /** Always true. */
  readonly restarts = true;
  /** Whether it serves one front-end and then leaves; found out by {@link probe}. */
  oneShot = false;
  readonly #command: string;
  readonly #patience: number;
  #child: ChildProcess | undefined;
  #pid: number | undefined;
  #used = false;
  #stopping = false;
  #output = "";
  #death: Death | undefined;

  /**
   * Starts nothing yet.
   *
   * @param command for the shell; `{socket}` stands for the socket's path
   */
  constructor(command: string, socketPath: string, patience: number) {
    this.#command = command;
    this.socketPath = socketPath;
    this.#patience = patience;
  }

  /** Process that listens. */
  get pid(): number | undefined {
    return this.#pid;
  }

  /** What it has written lately. */
  get output(): string {
    return this.#output;
  }

  #start(): void {
    removeFile(this.socketPath);
    const command = this.#command.replaceAll("{socket}", this.socketPath);
    // A group of its own, so that what the shell starts can be stopped with it.
    const child = spawn("/bin/sh", ["-c", command], { stdio: ["ignore", "pipe", "pipe"], detached: true });
    this.#child = child;
    this.#used = false;
    this.#output = "";
    const collect = (text: string): void => {
      this.#output = (this.#output + text).slice(-KEPT);
    };
    child.stdout?.setEncoding("utf8").on("data", collect);
    child.stderr?.setEncoding("utf8").on("data", collect);
    child.once("error", (error) => {
      collect(error.message);
      if (this.#child === child) this.#child = undefined;
    });
    child.once("exit", (code, signal) => {
      const crashed = crash(code, signal);
      if (this.#child !== child) return;
      this.#child = undefined;
      if (this.#stopping) return;
      if (crashed !== undefined) this.#death ??= { how: crashed, orderly: false };
      else if (!this.oneShot && this.#used) {
        this.#death ??= { how: `its process ends with status ${code}`, orderly: true };
      }
    });
  }

  /** Finds out whether it leaves with its front-end. All connections must be closed. */
  async probe(): Promise<void> {
    this.oneShot = true;
    this.oneShot = await this.#left(LEAVING);
  }

  async #left(ms: number): Promise<boolean> {
    return await until(() => this.#child === undefined ? true : undefined, ms) === true;
  }

  /** A new connection; starts it when it has ended. */
  async connect(): Promise<number> {
    if (this.oneShot && this.#used) await this.#left(this.#patience);
    // One that was used may be on its way out: then the next one is asked.
    const known = this.#child !== undefined && this.#used;
    if (this.#child === undefined) this.#start();
    try {
      const fd = await connectWithin(this.socketPath, STARTUP, () => this.#child !== undefined);
      this.#used = true;
      this.#pid = peerCredentials(fd).pid || undefined;
      return fd;
    } catch (error) {
      if (known && this.#child === undefined) return await this.connect();
      const why = this.#child === undefined ? "it ended before it listened" : "it does not listen";
      const said = this.#output === "" ? "" : `; it wrote: ${this.#output.trim()}`;
      throw new TargetError(`the back-end was started, but ${why}: ${(error as Error).message}${said}`);
    }
  }

  /** Whether it is well; one that is not is stopped, and the next connection starts it anew. */
  async settle(): Promise<Death | undefined> {
    if (this.oneShot) await this.#left(this.#patience);
    if (this.#death === undefined && !this.oneShot) {
      const alive = () => this.#child !== undefined;
      const wrong = alive() ? await greets(this.socketPath, this.#patience, alive) : undefined;
      // How it ended tells more than that it does not answer.
      if (wrong !== undefined) await this.#left(LEAVING);
      if (wrong !== undefined) this.#death ??= { how: wrong, orderly: false };
    }
    const death = this.#death;
    this.#death = undefined;
    if (death !== undefined) await this.#stop();
    return death;
  }

  async #stop(): Promise<void> {
    const child = this.#child;
    if (child?.pid === undefined) return;
    this.#stopping = true;
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      try {
        signalGroup(child.pid, SignalNumber[signal]);
      } catch {
        // It has just ended.
      }
      if (await this.#left(this.#patience)) break;
    }
    this.#stopping = false;
  }

  /** Stops it. */
  async close(): Promise<void> {
    await this.#stop();
    removeFile(this.socketPath);
  }
}
