/**
 * A program in TypeScript at the other end of a port.
 *
 * @module
 */

import type { ConsoleEnd, OutputData, PortLink } from "./end.ts";

/** Bytes that are handed to a program at once. */
const PIECE = 65536;

/** Takes what the guest has written. While a promise is pending the guest waits. */
export type OnOutput = (bytes: Uint8Array<ArrayBuffer>) => void | Promise<void>;

/**
 * An end that is a function, and a way to write.
 *
 * @example Answers the question for a name
 * ```ts
 * import { ConsoleDevice, ScriptEnd } from "@vhost/user/devices/console";
 *
 * const end: ScriptEnd = new ScriptEnd(async (bytes) => {
 *   if (new TextDecoder().decode(bytes).endsWith("login: ")) await end.send("root\n");
 * });
 * const device = new ConsoleDevice({ ports: [{ end, console: true }] });
 * ```
 */
export class ScriptEnd implements ConsoleEnd {
  readonly #onOutput: OnOutput;
  readonly #onError: (error: unknown) => void;
  readonly #waiting: { bytes: Uint8Array; done: () => void }[] = [];
  #port: PortLink | undefined;
  #connected: boolean;
  #busy = false;

  /**
   * An end for one port.
   *
   * @param onOutput takes what the guest has written
   * @param connected whether somebody is there from the start; see {@link connect}
   * @param onError told of an exception in `onOutput`
   */
  constructor(
    onOutput: OnOutput = () => {},
    connected = true,
    onError: (error: unknown) => void = console.error,
  ) {
    this.#onOutput = onOutput;
    this.#connected = connected;
    this.#onError = onError;
  }

  /** {@link ConsoleEnd.attach}. */
  attach(port: PortLink): void {
    this.#port = port;
    port.connected(this.#connected);
  }

  /** Says whether somebody is there: programs in the guest wait to write while nobody is. */
  connect(connected = true): void {
    this.#connected = connected;
    this.#port?.connected(connected);
  }

  /** Tells the guest the size of the terminal. */
  resize(columns: number, rows: number): void {
    this.#port?.resize(columns, rows);
  }

  /** Gives the guest bytes. Resolves when it has taken all of them, which a guest that is not there never does. */
  send(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data.slice();
    return new Promise((resolve) => {
      this.#waiting.push({ bytes, done: resolve });
      if (this.#waiting.length === 1) this.refilled();
    });
  }

  /** Bytes that the guest has not taken yet. */
  get unsent(): number {
    return this.#waiting.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  /** {@link ConsoleEnd.refilled}. */
  refilled(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      const taken = this.#port?.input(first.bytes) ?? 0;
      first.bytes = first.bytes.subarray(taken);
      if (first.bytes.length > 0) return;
      this.#waiting.shift();
      first.done();
    }
  }

  /** {@link ConsoleEnd.output}. */
  output(data: OutputData, from: number): number {
    let at = from;
    while (at < data.byteLength && !this.#busy) {
      const bytes = new Uint8Array(Math.min(PIECE, data.byteLength - at));
      data.copyTo(bytes, at);
      at += bytes.length;
      this.#hand(bytes);
    }
    return at - from;
  }

  #hand(bytes: Uint8Array<ArrayBuffer>): void {
    try {
      const result = this.#onOutput(bytes);
      if (result === undefined) return;
      this.#busy = true;
      result.catch(this.#onError).finally(() => {
        this.#busy = false;
        this.#port?.resume();
      });
    } catch (error) {
      this.#onError(error);
    }
  }
}
