/**
 * Threads beside a test: modules that take messages, and answer. Deno and Node start them in ways of their own, as ffi/ knows.
 *
 * @module
 */

import { type OwnThread, ownThread, startThread, type Thread } from "../../ffi/deno.ts";

/** A thread as the test sees it. It lives until it is ended. */
export class TestThread {
  readonly #thread: Thread;
  readonly #said: unknown[] = [];
  #failure: Error | undefined;
  #wake: () => void = () => {};

  /** Starts one that runs a module, which is to call {@link answering}. */
  constructor(module: URL) {
    this.#thread = startThread(module.href, "test", (message) => {
      if (message instanceof Error) this.#failure = message;
      else this.#said.push(message);
      this.#wake();
    }, (reason) => {
      this.#failure = new Error(reason);
      this.#wake();
    });
  }

  /** Sends a message. */
  post(message: unknown): void {
    this.#thread.post(message);
  }

  /** What it says next; what nobody has caught there fails here. */
  async next(): Promise<unknown> {
    while (this.#said.length === 0) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    return this.#said.shift();
  }

  /** Ends it. */
  end(): void {
    this.#thread.end();
  }
}

/** In the thread: takes messages. Returns how to answer. */
export function answering(onMessage: (message: unknown) => void): (answer: unknown) => void {
  const thread: OwnThread = ownThread(onMessage, (error) => thread.post(error));
  return (answer) => thread.post(answer);
}
