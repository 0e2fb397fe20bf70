import assert from "node:assert/strict";
import type { Scope } from "../support/cleanup.ts";
import { type DiskOptions, type OurBackend, startBackend, startDisk } from "../support/our_backend.ts";

const TAKEN = /(\d+) front-ends? taken over from process (\d+); their rings stood still for ([\d.]+) ms/;

/** Starts a process; one that takes over, when it replaces another. */
type Start = (more: readonly string[], replaces?: OurBackend) => Promise<OurBackend>;

/** A device that goes from one process to the next. */
export class Succession {
  /** The process that serves it now. */
  current: OurBackend;
  /** How long rings stood still at each change, ms. */
  readonly pauses: number[] = [];
  readonly #start: Start;

  private constructor(start: Start, first: OurBackend) {
    this.#start = start;
    this.current = first;
  }

  /** Starts the first process, of a disk. */
  static async start(scope: Scope, options: DiskOptions): Promise<Succession> {
    const { args = [] } = options;
    const start: Start = (more, replaces) =>
      startDisk(scope, { ...options, args: [...args, ...more], replaces });
    return new Succession(start, await start([]));
  }

  /** Starts the first process, of any device. */
  static async of(scope: Scope, command: string, args: readonly string[]): Promise<Succession> {
    const start: Start = (more, replaces) => startBackend(scope, command, [...args, ...more], { replaces });
    return new Succession(start, await start([]));
  }

  /** Where it is served. */
  get socket(): string {
    return this.current.socket;
  }

  /** Starts the next process, which takes `frontEnds` over, and waits for the end of the one before. */
  async next(frontEnds = 1): Promise<void> {
    const before = this.current;
    this.current = await this.#start(["--takeover"], before);
    const { output } = this.current.child;
    const [, sessions, pid, pause] = TAKEN.exec(output) ?? assert.fail(`nothing was taken over: ${output}`);
    assert.equal(Number(sessions), frontEnds);
    assert.equal(Number(pid), before.child.pid);
    this.pauses.push(Number(pause));
    assert.equal(await before.child.waitEnd(), 0, before.child.output);
    assert.deepEqual(before.complaints, []);
  }
}
