/**
 * What a front-end knows of the configuration space, for the back-end that comes after.
 *
 * @module
 */

import { type Config, MAX_CONFIG } from "../protocol/payloads.ts";

/** What was written to the configuration space, and what was read from it last. */
export class ConfigMemory {
  /** By offset and length, the latest last: each is to be written again. */
  readonly #written = new Map<string, Config>();
  readonly #read = new Uint8Array(MAX_CONFIG);
  /** By byte, whether it was read. */
  readonly #known = new Uint8Array(MAX_CONFIG);

  /** Bytes were written. */
  written(config: Config): void {
    const key = `${config.offset}+${config.data.length}`;
    this.#written.delete(key);
    this.#written.set(key, { ...config, data: config.data.slice() });
  }

  /** What a new back-end must be told, in this order. */
  get writes(): Iterable<Config> {
    return this.#written.values();
  }

  /** Bytes were read. Returns whether some of them are not what they were before. */
  read(offset: number, data: Uint8Array): boolean {
    const changed = data.some((byte, i) => this.#known[offset + i] === 1 && this.#read[offset + i] !== byte);
    this.#read.set(data, offset);
    this.#known.fill(1, offset, offset + data.length);
    return changed;
  }

  /** The device was reset: nothing of that holds. */
  reset(): void {
    this.#written.clear();
    this.#known.fill(0);
  }

  /** The range to read again to see whether something has changed; `undefined` when nothing was read. */
  get range(): { offset: number; length: number } | undefined {
    const offset = this.#known.indexOf(1);
    return offset < 0 ? undefined : { offset, length: this.#known.lastIndexOf(1) + 1 - offset };
  }
}
