import type { Buffer } from "node:buffer";
import { connect, type Socket } from "node:net";
import type { Readable } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import { setTimeout as sleep } from "node:timers/promises";

/** Connects to the Unix socket at `path`, which may be a moment away from being there. */
export async function connectUnix(
  path: string,
  timeout: number,
  gone: () => string | undefined,
): Promise<Socket> {
  const deadline = Date.now() + timeout;
  while (true) {
    try {
      return await new Promise<Socket>((resolve, reject) => {
        const socket = connect(path);
        socket.once("connect", () => resolve(socket));
        socket.once("error", reject);
      });
    } catch (error) {
      const why = gone();
      if (why !== undefined || Date.now() > deadline) {
        throw new Error(`cannot connect to ${path}: ${(error as Error).message}\n${why ?? ""}`);
      }
      await sleep(10);
    }
  }
}

/** Text from a stream, taken piece by piece up to what the reader waits for. */
export class TextReader {
  #text = "";
  #ended = false;
  #wake: () => void = () => {};

  /** Starts reading `stream`, until it ends. */
  constructor(stream: Readable) {
    const decoder = new StringDecoder("utf8");
    stream.on("data", (bytes: Buffer) => {
      this.#text += decoder.write(bytes);
      this.#wake();
    });
    const end = (): void => {
      this.#ended = true;
      this.#wake();
    };
    stream.once("end", end).once("close", end).once("error", end);
  }

  /** Whether the stream has ended, so that nothing more will come. */
  get ended(): boolean {
    return this.#ended;
  }

  /** What has come and was not taken. */
  get pending(): string {
    return this.#text;
  }

  /**
   * Takes everything up to and with the first match of `pattern`, waiting up to `timeout` milliseconds for
   * it. Returns the text before the match and the match, or undefined if the time is over or the stream is.
   * Only one call at a time.
   */
  async take(
    pattern: RegExp,
    timeout: number,
  ): Promise<{ before: string; match: RegExpExecArray } | undefined> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#wake();
    }, timeout);
    try {
      while (true) {
        const match = pattern.exec(this.#text);
        if (match) {
          const before = this.#text.slice(0, match.index);
          this.#text = this.#text.slice(match.index + match[0].length);
          return { before, match };
        }
        if (late || this.#ended) return undefined;
        await new Promise<void>((resolve) => this.#wake = resolve);
      }
    } finally {
      clearTimeout(timer);
    }
  }
}
