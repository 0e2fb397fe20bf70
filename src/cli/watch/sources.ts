/**
 * The files that a module is made of.
 *
 * @module
 */

import { statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { graph } from "./graph/deno.ts";

/**
 * How often the files are looked at, ms. They are not waited for by inotify: that knows nothing of files that others change on a
 * network, loses those that an editor replaces, and runs out. A look at 150 files takes a millisecond.
 */
const INTERVAL = 200;

function stateOf(file: string): string {
  try {
    const { mtimeNs, size, ino } = statSync(file, { bigint: true });
    return `${ino}:${size}:${mtimeNs}`;
  } catch {
    return "missing";
  }
}

/** The files of a module as they were at one time. */
export class Sources {
  /** Paths. Modules of the net do not change. */
  readonly files: readonly string[];
  #states: string;

  private constructor(files: readonly string[]) {
    this.files = files;
    this.#states = this.#look();
  }

  /** The files of a module as they are now. */
  static async of(module: URL, resolution: readonly string[]): Promise<Sources> {
    const modules = await graph(module, resolution);
    const local = modules.filter((specifier) => specifier.startsWith("file:"));
    return new Sources(local.map((specifier) => fileURLToPath(specifier)));
  }

  #look(): string {
    return this.files.map(stateOf).join("\n");
  }

  /**
   * Resolves when one of the files has changed, and they stay as they are for a moment: an editor may write several.
   *
   * @throws {DOMException} when the signal is aborted
   */
  async changed(signal: AbortSignal): Promise<void> {
    for (let last = this.#states;;) {
      await sleep(INTERVAL, undefined, { signal });
      const now = this.#look();
      if (now !== this.#states && now === last) return;
      last = now;
    }
  }
}
