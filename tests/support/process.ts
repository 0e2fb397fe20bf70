import { type ChildProcess, spawn, type StdioOptions } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { constants } from "node:os";
import { basename } from "node:path";
import process from "node:process";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { givenAway } from "../../ffi/deno.ts";
import { onEnd, type Scope } from "./cleanup.ts";
import { which } from "./path.ts";

/** How much of a program's output is kept for error messages, in characters. */
const OUTPUT_LIMIT = 64 * 1024;

/** How long a program may take to end by itself after SIGTERM, in milliseconds. */
const GRACE = 2000;

/** How long to wait for a line or a socket, in milliseconds, when the caller does not say. */
const PATIENCE = 30_000;

const setpriv = which("setpriv");

/** What `run` and `Child.start` share. */
export interface ProcessOptions {
  /** Variables to add to the environment. */
  env?: Record<string, string>;
  /** The directory to run in. */
  cwd?: string;
}

/** Options of {@linkcode run}. */
export interface RunOptions extends ProcessOptions {
  /** Milliseconds until the program is killed and the call fails; 30 000 by default. */
  timeout?: number;
  /** Whether an exit status other than 0 is an error; true by default. */
  check?: boolean;
  /** Kills the program when aborted: pass the test's `signal`. */
  signal?: AbortSignal;
}

/** Options of {@linkcode Child.start}. */
export interface ChildOptions extends ProcessOptions {
  /** Leaves standard input and output to the caller, as `stdin` and `stdout`; false by default. */
  pipe?: boolean;
  /** For a program that does not end by SIGTERM: it gets SIGKILL at once. False by default. */
  stubborn?: boolean;
  /** Descriptors that the program inherits, as 3 and up. They are closed here when the program starts. */
  fds?: readonly number[];
}

/** How a program ended and what it said. */
export interface RunResult {
  /** The exit status, or 128 and the signal's number if a signal ended it (what a shell would say). */
  code: number;
  /** Standard output. */
  stdout: string;
  /** Standard error. */
  stderr: string;
}

/** Runs a program to its end, with nothing on its standard input. */
export async function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const { timeout = 30_000, check = true, signal } = options;
  const child = spawnGuarded(command, args, options, ["ignore", "pipe", "pipe"]);
  const result = { code: 0, stdout: "", stderr: "" };
  child.stdout?.setEncoding("utf8").on("data", (text: string) => result.stdout += text);
  child.stderr?.setEncoding("utf8").on("data", (text: string) => result.stderr += text);

  let killed = "";
  const kill = (why: string): void => {
    killed = why;
    killGroup(child, "SIGKILL");
  };
  const onAbort = (): void => kill("was stopped with its test");
  const timer = setTimeout(() => kill(`did not end within ${timeout} ms`), timeout);
  signal?.addEventListener("abort", onAbort);
  try {
    result.code = await new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, name) => resolve(status(code, name)));
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
  if (killed || (check && result.code !== 0)) {
    throw new Error(
      `${command} ${killed || `ended with status ${result.code}`}\n` +
        `command: ${[command, ...args].join(" ")}\noutput: ${tail(result.stdout + result.stderr)}`,
    );
  }
  return result;
}

/** A program that runs beside the test and does not outlive it. */
export class Child {
  /** The program's name, for messages. */
  readonly name: string;
  /** Settles when the program has ended, with its exit status. Never rejects. */
  readonly ended: Promise<number>;
  #child: ChildProcess;
  #grace: number;
  #output = "";
  #code: number | undefined;
  #stopping = false;
  #waiting = new Set<() => void>();

  /**
   * Starts a program; it is stopped at the end of the test. Unless piped, its input is empty and its output is
   * collected.
   */
  static start(scope: Scope, command: string, args: readonly string[], options: ChildOptions = {}): Child {
    const child = new Child(command, args, options);
    onEnd(scope, async () => {
      await child.stop();
    });
    return child;
  }

  private constructor(command: string, args: readonly string[], options: ChildOptions) {
    this.name = basename(command);
    this.#grace = options.stubborn ? 0 : GRACE;
    const { fds = [] } = options;
    const child = spawnGuarded(command, args, options, [
      ...[options.pipe ? "pipe" : "ignore", "pipe", "pipe"] as const,
      ...fds,
    ]);
    // Deno has done so.
    fds.forEach(givenAway);
    this.#child = child;
    const collect = (text: string): void => {
      this.#output = (this.#output + text).slice(-OUTPUT_LIMIT);
      this.#changed();
    };
    if (!options.pipe) child.stdout?.setEncoding("utf8").on("data", collect);
    child.stderr?.setEncoding("utf8").on("data", collect);
    this.ended = new Promise((resolve) => {
      const end = (code: number): void => {
        this.#code = code;
        this.#changed();
        resolve(code);
      };
      child.once("error", (error) => {
        collect(error.message);
        end(127);
      });
      child.once("exit", (code, signal) => {
        // The last words may still be in the pipe; or somebody else may hold the pipe open for ever. In many turns of the event
        // loop, so that what stands still is not the time for the words alone.
        let turns = 20;
        const timer = setInterval(() => {
          if (--turns > 0) return;
          clearInterval(timer);
          end(status(code, signal));
        }, 10);
        child.once("close", () => {
          clearInterval(timer);
          end(status(code, signal));
        });
      });
    });
  }

  /** The process id; 0 if the program could not be started. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** The exit status, or undefined while the program runs. */
  get code(): number | undefined {
    return this.#code;
  }

  /** The end of what the program has written: standard error and, unless piped, standard output. */
  get output(): string {
    return this.#output;
  }

  /** The program's standard input, if it was started with `pipe`. */
  get stdin(): Writable {
    if (!this.#child.stdin) throw new Error(`${this.name} was started without a pipe`);
    return this.#child.stdin;
  }

  /** The program's standard output, if it was started with `pipe`. */
  get stdout(): Readable {
    if (!this.#child.stdout) throw new Error(`${this.name} was started without a pipe`);
    return this.#child.stdout;
  }

  /** Waits for a whole line of output that matches; lines written before the call count. */
  async waitLine(pattern: RegExp, timeout: number = PATIENCE): Promise<string> {
    return await this.#until(`a line like ${pattern}`, timeout, () => {
      const lines = this.#output.split("\n").slice(0, -1);
      return lines.find((line) => pattern.test(line));
    });
  }

  /** Waits until somebody listens on the Unix socket at `path`. */
  async waitSocket(path: string, timeout: number = PATIENCE): Promise<void> {
    await this.#until(
      `the socket ${path}`,
      timeout,
      () => statSync(path, { throwIfNoEntry: false })?.isSocket() && isListening(path),
    );
  }

  /**
   * Waits until a Unix socket at `path`, as the program has named it, takes connections: a moment after its file is there,
   * and on a busy machine some milliseconds.
   */
  async waitListening(path: string, timeout: number = PATIENCE): Promise<void> {
    await this.#until(`somebody who listens on ${path}`, timeout, () => isListening(path));
  }

  /** Waits until the program has ended by itself and returns its exit status. */
  async waitEnd(timeout: number = PATIENCE): Promise<number> {
    await this.#until("its end", timeout, () => this.#code !== undefined);
    return await this.ended;
  }

  /** Sends a signal to the program and to what it started. */
  kill(signal: NodeJS.Signals): void {
    if (this.#code === undefined) killGroup(this.#child, signal);
  }

  /** Ends the program: SIGTERM and, if that is not enough within `grace` milliseconds, SIGKILL. */
  async stop(grace: number = this.#grace): Promise<number> {
    if (!this.#stopping) {
      this.#stopping = true;
      if (grace > 0) {
        this.kill("SIGTERM");
        const timer = new AbortController();
        await Promise.race([this.ended, sleep(grace, undefined, { signal: timer.signal }).catch(() => {})]);
        timer.abort();
      }
      // Also when it has ended: what it started may be left.
      killGroup(this.#child, "SIGKILL");
    }
    return await this.ended;
  }

  /** Polls, because a socket file announces itself to nobody; output and the end wake it at once. */
  async #until<T>(what: string, timeout: number, probe: () => T | undefined | false): Promise<T> {
    const deadline = Date.now() + timeout;
    while (true) {
      const found = probe();
      if (found !== undefined && found !== false) return found;
      const ended = this.#code !== undefined;
      if (ended || Date.now() > deadline) {
        const why = ended ? `it ended with status ${this.#code}` : `${timeout} ms went by`;
        throw new Error(`waiting for ${what} of ${this.name}: ${why}\noutput: ${tail(this.#output)}`);
      }
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          clearTimeout(timer);
          this.#waiting.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, 10);
        this.#waiting.add(wake);
      });
    }
  }

  #changed(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}

/**
 * Starts a program that cannot be left behind: it leads a process group, which is killed as a whole, and the
 * kernel kills it when the test runner dies.
 */
function spawnGuarded(
  command: string,
  args: readonly string[],
  options: ProcessOptions,
  stdio: StdioOptions,
): ChildProcess {
  const guard = setpriv ? [setpriv, "--pdeathsig", "KILL", "--", command] : [command];
  return spawn(guard[0], [...guard.slice(1), ...args], {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    detached: true,
    stdio,
  });
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    // No such process: nothing is left of the group.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Whether somebody listens on a Unix socket: its file is there a moment before. */
function isListening(path: string): boolean {
  // Columns: Num RefCount Protocol Flags Type St Inode Path; the flag is __SO_ACCEPTCON. The path is as it was said.
  return readFileSync("/proc/net/unix", "utf8").split("\n").some((line) => {
    const [, , , flags, , , , name] = line.split(/ +/);
    return flags === "00010000" && (name === path || (!name?.startsWith("/") && path.endsWith(`/${name}`)));
  });
}

function status(code: number | null, signal: NodeJS.Signals | null): number {
  if (code !== null) return code;
  return 128 + (signal ? constants.signals[signal] : 0);
}

function tail(text: string): string {
  return text.length > 4000 ? `[...] ${text.slice(-4000)}` : text || "(none)";
}
