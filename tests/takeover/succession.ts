import assert from "node:assert/strict";
import type { Scope } from "../support/cleanup.ts";
import { type DiskOptions, type OurBackend, startDisk } from "../support/our_backend.ts";

const TAKEN = /(\d+) front-ends? taken over from process (\d+); their rings stood still for ([\d.]+) ms/;

/** A disk that goes from one process to the next. */
export class Succession {
  /** The process that serves it now. */
  current: OurBackend;
  /** How long rings stood still at each change, ms. */
  readonly pauses: number[] = [];
  readonly #scope: Scope;
  readonly #options: DiskOptions;

  private constructor(scope: Scope, options: DiskOptions, first: OurBackend) {
    this.#scope = scope;
    this.#options = options;
    this.current = first;
  }

  /** Starts the first process. */
  static async start(scope: Scope, options: DiskOptions): Promise<Succession> {
    return new Succession(scope, options, await startDisk(scope, options));
  }

  /** Where it is served. */
  get socket(): string {
    return this.current.socket;
  }

  /** Starts the next process, which takes `frontEnds` over, and waits for the end of the one before. */
  async next(frontEnds = 1): Promise<void> {
    const before = this.current;
    const args = [...this.#options.args ?? [], "--takeover"];
    this.current = await startDisk(this.#scope, { ...this.#options, args, replaces: before });
    const { output } = this.current.child;
    const [, sessions, pid, pause] = TAKEN.exec(output) ?? assert.fail(`nothing was taken over: ${output}`);
    assert.equal(Number(sessions), frontEnds);
    assert.equal(Number(pid), before.child.pid);
    this.pauses.push(Number(pause));
    assert.equal(await before.child.waitEnd(), 0, before.child.output);
    assert.deepEqual(before.complaints, []);
  }
}
