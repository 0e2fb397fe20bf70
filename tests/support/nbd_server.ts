import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Scope, tempDir } from "./cleanup.ts";
import { peerPath } from "./peers.ts";
import { Child } from "./process.ts";

/** An NBD server on a Unix socket, which can be ended and started again. */
export class NbdServer {
  /** Its socket. */
  readonly socket: string;
  /** The process. */
  child: Child;
  readonly #scope: Scope;
  readonly #args: readonly string[];

  /**
   * Starts nbdkit on a Unix socket of its own; returns when it listens.
   *
   * @param args its plugin and what that takes, with filters and options before it
   */
  static async start(scope: Scope, ...args: string[]): Promise<NbdServer> {
    return await NbdServer.startAt(scope, join(tempDir(scope), "nbd.sock"), ...args);
  }

  /** Starts it at a path. */
  static async startAt(scope: Scope, path: string, ...args: string[]): Promise<NbdServer> {
    const server = new NbdServer(scope, path, args);
    await server.#listening();
    return server;
  }

  private constructor(scope: Scope, socket: string, args: readonly string[]) {
    this.#scope = scope;
    this.#args = args;
    this.socket = socket;
    this.child = this.#start();
  }

  #start(): Child {
    return Child.start(this.#scope, peerPath("nbdkit"), [
      ...["--foreground", "--exit-with-parent", `--unix=${this.socket}`],
      ...this.#args,
    ]);
  }

  #listening(): Promise<void> {
    return this.child.waitSocket(this.socket, 30_000);
  }

  /** How it is named, with its export. */
  uri(name = "", scheme = "nbd"): string {
    return `${scheme}+unix:///${name}?socket=${this.socket}`;
  }

  /** Ends it without a word to its clients. */
  async kill(): Promise<void> {
    this.child.kill("SIGKILL");
    await this.child.waitEnd();
  }

  /** Starts it again. */
  async restart(): Promise<void> {
    if (this.child.code === undefined) await this.kill();
    // A socket that it has left would be in its way.
    rmSync(this.socket, { force: true });
    this.child = this.#start();
    await this.#listening();
  }
}

/** Starts nbdkit on a port of 127.0.0.1; returns when it listens. */
export async function startNbdPort(scope: Scope, port: number, ...args: string[]): Promise<Child> {
  const pidFile = join(tempDir(scope), "pid");
  const child = Child.start(scope, peerPath("nbdkit"), [
    ...["--foreground", "--exit-with-parent", "--ipaddr=127.0.0.1", `--port=${port}`, `--pidfile=${pidFile}`],
    ...args,
  ]);
  // Written when it listens.
  for (; !existsSync(pidFile); await sleep(10)) {
    if (child.code !== undefined) throw new Error(`nbdkit has ended: ${child.output}`);
  }
  return child;
}
