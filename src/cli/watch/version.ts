/**
 * One version of a module, in a process of its own.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { givenAway } from "../../../ffi/deno.ts";
import { close, duplicate } from "../../../ffi/fd.ts";
import { socketPair } from "../../../ffi/socket.ts";
import { Tether } from "./tether.ts";

/** How long a device may take to end before it is killed, ms. */
const GRACE = 1000;
/** Numbers that the listening socket and the tether have in the process. */
const LISTENER = 3;
const TETHER = 4;

/**
 * A process with one version: modules cannot be unloaded, and whatever a device has opened, mapped or hung itself up in ends with
 * its process. It inherits the listening socket, so that front-ends that connect between two versions wait in its queue.
 */
export class Version {
  /** Resolves with whether the module is loaded and can be served; if not it has said why, and is about to end. */
  readonly loaded: Promise<boolean>;
  /** Resolves with the exit code when the process has ended, or with the name of the signal that ended it. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  readonly #tether: Tether;
  #over = false;

  /**
   * Starts a process. What it writes goes where the output of this one goes.
   *
   * @param words of the runtime, with the script
   * @param args of the script; options that say where to serve are added
   * @param listener a socket, which stays the caller's
   */
  constructor(words: readonly string[], args: readonly string[], listener: number) {
    const [own, others] = socketPair();
    const given = [duplicate(listener), others];
    try {
      this.#child = spawn(
        process.execPath,
        [...words, ...args, `--fd=${LISTENER}`, `--standby=${TETHER}`],
        { stdio: ["ignore", "inherit", "inherit", ...given] },
      );
    } catch (error) {
      for (const fd of [own, ...given]) close(fd);
      throw error;
    }
    given.forEach(givenAway);
    const child = this.#child;
    const tether = this.#tether = new Tether(own);
    this.ended = new Promise((resolve) => {
      child.once("error", (error) => resolve(error.message));
      child.once("exit", (code, signal) => resolve(code === null ? String(signal) : `status ${code}`));
    });
    this.loaded = tether.next().then((heard) => heard === "rung");
    void this.ended.then(() => {
      this.#over = true;
      tether.close();
    });
  }

  /** Has it serve, once it is {@link loaded}. Resolves with whether it does; if not it has said why. */
  async serve(): Promise<boolean> {
    this.#tether.ring();
    return await this.#tether.next() === "rung";
  }

  /** Hands a signal on. */
  signal(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    // Deno's own way sends no second signal.
    if (pid !== undefined && !this.#over) process.kill(pid, signal);
  }

  /** Ends it; a device that does not end is killed. Returns whether it had to be. */
  async end(): Promise<boolean> {
    let killed = false;
    this.signal("SIGTERM");
    const timer = setTimeout(() => {
      killed = true;
      this.signal("SIGKILL");
    }, GRACE);
    await this.ended;
    clearTimeout(timer);
    return killed;
  }
}
