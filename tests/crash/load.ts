import { setTimeout as sleep } from "node:timers/promises";
import { SECTOR } from "../../src/devices/blk/mod.ts";
import type { BlkDriver } from "../../src/tools/blk_driver.ts";
import type { Random } from "../support/random.ts";
import { contentsOf, type History } from "./history.ts";

/** Sectors of the largest write. */
const LONGEST = 16;

/** What a load does. */
export interface LoadOptions {
  /** Requests under way at once; 16 by default. */
  readonly depth?: number;
  /** Whether it also reads and looks at what comes back; yes by default. */
  readonly reads?: boolean;
  /** Whether a write is durable when it is acknowledged. */
  readonly writeThrough?: boolean;
}

/** Keeps a disk busy with writes that overlap, with flushes and with reads, and holds what it sees against a history. */
export class Load {
  /** Requests that have ended well. */
  done = 0;
  readonly #disk: BlkDriver;
  readonly #history: History;
  readonly #random: Random;
  readonly #options: LoadOptions;
  readonly #running: Promise<void>[];
  #stop = false;
  #failure: unknown;

  /** Starts. */
  constructor(disk: BlkDriver, history: History, random: Random, options: LoadOptions = {}) {
    this.#disk = disk;
    this.#history = history;
    this.#random = random;
    this.#options = options;
    this.#running = Array.from({ length: options.depth ?? 16 }, () => this.#run());
  }

  async #run(): Promise<void> {
    try {
      for (; !this.#stop; this.done++) await this.#one();
    } catch (error) {
      this.#failure ??= error;
      this.#stop = true;
    }
  }

  async #one(): Promise<void> {
    const history = this.#history;
    const random = this.#random;
    const count = random.int(1, LONGEST);
    const sector = random.int(0, history.sectors - count);
    const kind = random.int(0, 99);
    if (kind < 5) {
      const durable = history.flush();
      await this.#disk.flush();
      durable();
    } else if (kind < 30 && this.#options.reads !== false) {
      const reading = history.startReading(sector, count);
      history.finishReading(reading, await this.#disk.read(sector * SECTOR, count * SECTOR));
    } else {
      const write = history.issue(sector, count);
      await this.#disk.write(sector * SECTOR, contentsOf(write));
      history.acknowledge(write, this.#options.writeThrough);
    }
  }

  /** Waits until some more requests have ended. */
  async more(count: number): Promise<void> {
    for (const goal = this.done + count; this.done < goal; await sleep(1)) this.check();
  }

  /** @throws what has gone wrong so far */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Lets the last requests end. */
  async end(): Promise<void> {
    this.#stop = true;
    await Promise.all(this.#running);
    this.check();
  }
}
