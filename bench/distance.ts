/** How far processors are from each other: what two threads pay that share a ring. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Scope, tempDir } from "../tests/support/cleanup.ts";
import { run } from "../tests/support/process.ts";

/** `distance.c`, compiled, and what it has found. */
export class Distance {
  readonly #program: string;
  #least = Infinity;
  #most = 0;

  /** Compiles it; the program goes with the scope. */
  static async compile(scope: Scope): Promise<Distance> {
    const program = join(tempDir(scope), "distance");
    const source = fileURLToPath(new URL("distance.c", import.meta.url));
    await run("cc", ["-O2", "-Wall", "-Werror", "-o", program, source, "-lpthread"], { timeout: 60_000 });
    return new Distance(program);
  }

  private constructor(program: string) {
    this.#program = program;
  }

  /** Measures between two processors. */
  async measure(one: number, other: number): Promise<void> {
    const { stdout } = await run(this.#program, [String(one), String(other)], { timeout: 60_000 });
    const found = Number(stdout);
    this.#least = Math.min(this.#least, found);
    this.#most = Math.max(this.#most, found);
  }

  /** What it was, in a sentence. Where it changes, so do all figures: the host has moved the virtual processors. */
  get note(): string {
    return `a word took ${this.#least} to ${this.#most} ns from one of the processors to the other and back, ` +
      "measured before each figure";
  }
}
