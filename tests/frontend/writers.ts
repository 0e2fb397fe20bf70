import { setTimeout as sleep } from "node:timers/promises";
import type { BlkDriver } from "../../src/tools/blk_driver.ts";
import { bytesOf, sameBytes } from "../session/scene.ts";

const BLOCK = 4096;
/** Blocks that each writer has to itself. */
const BLOCKS = 16;

/** Writers that keep a disk busy, and know what it must hold. */
export class Writers {
  /** Bytes that they use. */
  readonly size: number;
  /** Writes under way. */
  pending = 0;
  /** Writes that have ended well. */
  done = 0;
  readonly #disk: BlkDriver;
  readonly #expected: Uint8Array<ArrayBuffer>;
  readonly #running: Promise<void>[];
  #stop = false;
  #failure: unknown;

  /** Starts `count` of them. */
  constructor(disk: BlkDriver, count: number) {
    this.#disk = disk;
    this.size = count * BLOCKS * BLOCK;
    this.#expected = new Uint8Array(this.size);
    this.#running = Array.from({ length: count }, (_, i) => this.#write(i));
  }

  async #write(writer: number): Promise<void> {
    try {
      for (let turn = 0; !this.#stop; turn++) {
        // Every write is different, so that a lost one and a late one are both seen.
        const at = (writer * BLOCKS + turn % BLOCKS) * BLOCK;
        const data = bytesOf(writer * 100_003 + turn, BLOCK);
        this.pending++;
        await this.#disk.write(at, data);
        this.pending--;
        this.done++;
        this.#expected.set(data, at);
      }
    } catch (error) {
      this.#failure ??= error;
    }
  }

  /** Waits until some more writes have ended. */
  async more(count: number): Promise<void> {
    for (const goal = this.done + count; this.done < goal; await sleep(1)) {
      if (this.#failure !== undefined) throw this.#failure;
    }
  }

  /** Lets the last writes end, and compares the whole. */
  async verify(): Promise<Uint8Array> {
    this.#stop = true;
    await Promise.all(this.#running);
    if (this.#failure !== undefined) throw this.#failure;
    sameBytes(await this.#disk.read(0, this.size), this.#expected, "what the disk holds");
    return this.#expected;
  }
}
