/**
 * Who still has a descriptor.
 *
 * @module
 */

import { close, readBytes, setBlocking } from "../../../ffi/fd.ts";
import { socketPair } from "../../../ffi/socket.ts";
import { happens } from "./wait.ts";

/** A descriptor of which one can tell when the last copy of it is closed, whoever has it. */
export class Witness {
  /** To be sent away. */
  readonly fd: number;
  readonly #ours: number;
  #released = false;
  #closed = false;

  /** A new one. */
  constructor() {
    [this.#ours, this.fd] = socketPair();
    setBlocking(this.fd);
  }

  /** Closes our own copy. */
  release(): void {
    if (!this.#released) close(this.fd);
    this.#released = true;
  }

  /** Whether all other copies are closed within the time. {@link release} ours first. */
  async gone(ms: number): Promise<boolean> {
    return await happens(() => readBytes(this.#ours)?.length === 0, ms);
  }

  /** Closes everything of it. */
  close(): void {
    this.release();
    if (!this.#closed) close(this.#ours);
    this.#closed = true;
  }
}
