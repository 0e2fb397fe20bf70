import { MemoryStorage, type Storage } from "../../src/devices/blk/mod.ts";
import type { Span } from "../../mod.ts";

/** A request that waits for the test's word. */
export interface Held {
  /** What is to be done. */
  readonly kind: "read" | "write" | "flush" | "discard" | "writeZeroes";
  /** Where, bytes. */
  readonly position: number;
  /** How much, bytes. */
  readonly length: number;
  /** Does it. */
  finish(): void;
  /** Fails. */
  fail(): void;
}

/** A disk in memory that does each request when the test says so; at once when its gate is open. */
export class GatedStorage implements Storage {
  readonly readOnly = false;
  /** Requests that wait, oldest first. */
  readonly held: Held[] = [];
  /** What was done, in order. */
  readonly done: string[] = [];
  /** Whether requests go on without the test's word, though not in the same turn. */
  open = false;
  /** Whether every request fails that goes on without the test's word. */
  broken = false;
  readonly #inner: MemoryStorage;

  /** A disk of zeros. */
  constructor(size: number = 1 << 20) {
    this.#inner = new MemoryStorage(size);
  }

  get size(): number {
    return this.#inner.size;
  }

  #hold(kind: Held["kind"], position: number, length: number, act: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const held: Held = {
        kind,
        position,
        length,
        finish: () => {
          act();
          this.done.push(kind);
          resolve();
        },
        fail: () => reject(new Error(`${kind} failed on purpose`)),
      };
      if (!this.open) this.held.push(held);
      else setTimeout(this.broken ? held.fail : held.finish, 1);
    });
  }

  read(data: Span, position: number): Promise<void> {
    return this.#hold("read", position, data.byteLength, () => this.#inner.read(data, position));
  }

  write(data: Span, position: number): Promise<void> {
    return this.#hold("write", position, data.byteLength, () => this.#inner.write(data, position));
  }

  flush(): Promise<void> {
    return this.#hold("flush", 0, 0, () => {});
  }

  discard(position: number, length: number): Promise<void> {
    return this.#hold("discard", position, length, () => this.#inner.discard(position, length));
  }

  writeZeroes(position: number, length: number, mayUnmap: boolean): Promise<void> {
    return this.#hold(
      "writeZeroes",
      position,
      length,
      () => this.#inner.writeZeroes(position, length, mayUnmap),
    );
  }

  /** Lets everything go on that waits. */
  release(): void {
    for (const each of this.held.splice(0)) each.finish();
  }

  close(): void {
    this.#inner.close();
  }
}
