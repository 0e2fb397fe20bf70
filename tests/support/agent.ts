import { randomUUID } from "node:crypto";
import type { Readable, Writable } from "node:stream";
import { TextReader } from "./stream.ts";

/** How long a script may take to arrive before it is sent again, in milliseconds; each time twice as long. */
const RESEND = 1000;

/** Where an agent listens, and what to say about its guest when something goes wrong. */
export interface AgentPort {
  /** What the agent writes. */
  readable: Readable;
  /** What the agent reads. */
  writable: Writable;
  /** The state of the guest: its console, what its emulator said. */
  describe(): string;
}

/** Runs shell scripts in a test guest: the host's end of the protocol of `scripts/guest/init`. */
export class Agent {
  #port: AgentPort;
  #reader: TextReader;
  #last: Promise<unknown> = Promise.resolve();

  /** Takes over the port. */
  constructor(port: AgentPort) {
    this.#port = port;
    this.#reader = new TextReader(port.readable);
    // The write that meets a dead guest is reported by the read that waits for its answer.
    port.writable.on("error", () => {});
  }

  /** Waits until the guest has booted. */
  async ready(timeout: number): Promise<void> {
    if (!await this.#reader.take(/@@READY@@\n/, timeout)) throw this.#silence("no agent", timeout);
  }

  /**
   * Runs a script in the guest's shell and returns its output without the last newline. Fails if its exit
   * status is not 0 or it takes more than `timeout` milliseconds. Calls made at once run one after another.
   */
  run(script: string, timeout: number = 20_000): Promise<string> {
    const result = this.#last.then(() => this.#run(script, timeout));
    this.#last = result.catch(() => {});
    return result;
  }

  async #run(script: string, timeout: number): Promise<string> {
    await this.start(script, timeout);
    const answer = await this.#reader.take(/@@RC=(\d+)@@\n/, timeout);
    if (!answer) throw this.#silence(`no answer to: ${script}\nso far: ${this.#reader.pending}`, timeout);
    const output = answer.before.replace(/\n$/, "");
    if (answer.match[1] !== "0") {
      throw this.#error(`status ${answer.match[1]} of: ${script}\noutput: ${output}`);
    }
    return output;
  }

  /** Sends a script until it has arrived as it was sent, and does not wait for its end: for one that ends the guest. */
  async start(script: string, timeout: number = 20_000): Promise<void> {
    const token = randomUUID();
    const deadline = Date.now() + timeout;
    for (let patience = RESEND; Date.now() < deadline && !this.#reader.ended; patience *= 2) {
      this.#port.writable.write(`${script}\n@@RUN ${token} ${script.length + 1}@@\n`);
      const answer = await this.#reader.take(/@@(GO|AGAIN)@@\n/, Math.min(patience, deadline - Date.now()));
      if (answer?.match[1] === "GO") return;
    }
    throw this.#silence(`it does not take: ${script}`, timeout);
  }

  #silence(what: string, timeout: number): Error {
    return this.#error(`${this.#reader.ended ? "it is gone" : `${timeout} ms went by`}: ${what}`);
  }

  #error(what: string): Error {
    return new Error(`guest: ${what}\n${this.#port.describe()}`);
  }
}
