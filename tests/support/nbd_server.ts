import { rmSync } from "node:fs";
import { join } from "node:path";
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
   * Starts nbdkit; returns when it listens.
   *
   * @param args its plugin and what that takes, with filters and options before it
   */
  static async start(scope: Scope, ...args: string[]): Promise<NbdServer> {
    const server = new NbdServer(scope, args);
    await server.#listening();
    return server;
  }

  private constructor(scope: Scope, args: readonly string[]) {
    this.#scope = scope;
    this.#args = args;
    this.socket = join(tempDir(scope), "nbd.sock");
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
