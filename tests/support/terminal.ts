import { setTimeout as sleep } from "node:timers/promises";
import { onEnd, type Scope } from "./cleanup.ts";
import { peerPath } from "./peers.ts";
import { Child, type ChildOptions } from "./process.ts";

/** How long to wait for what a program shows, in milliseconds. */
const PATIENCE = 30_000;

/** A program with a terminal of its own, and what it has shown there. Needs the peer `script`. */
export class Terminal {
  readonly #child: Child;
  #shown = "";
  #seen = 0;

  /** Starts a program by a command of the shell. */
  constructor(scope: Scope, command: string, options: ChildOptions = {}) {
    this.#child = Child.start(scope, peerPath("script"), ["-qec", command, "/dev/null"], {
      ...options,
      pipe: true,
    });
    this.#child.stdout.setEncoding("utf8").on("data", (text: string) => this.#shown += text);
    // The program is in a session of its own: it ends when its terminal does.
    onEnd(scope, () => void this.#child.stdin.end());
  }

  /** All that was shown. */
  get shown(): string {
    return this.#shown;
  }

  /** Types a text. */
  type(text: string): void {
    this.#child.stdin.write(text);
  }

  /** Waits until it shows what matches, after what was waited for before. */
  async wait(pattern: RegExp): Promise<RegExpExecArray> {
    const deadline = Date.now() + PATIENCE;
    while (true) {
      const match = pattern.exec(this.#shown.slice(this.#seen));
      if (match !== null) {
        this.#seen += match.index + match[0].length;
        return match;
      }
      if (Date.now() > deadline || this.#child.code !== undefined) {
        throw new Error(`waiting for ${pattern}; it showed ${JSON.stringify(this.#shown.slice(this.#seen))}`);
      }
      await sleep(10);
    }
  }

  /** Waits for its end, and returns its exit status. */
  async end(): Promise<number> {
    return await this.#child.waitEnd(PATIENCE);
  }
}
