/** The front-ends that measure. Both are C: what is slow is then the back-end. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Scope, tempDir } from "../tests/support/cleanup.ts";
import { peerPath } from "../tests/support/peers.ts";
import { Child, run } from "../tests/support/process.ts";
import { blkioDisk } from "../tests/support/qemu_io.ts";

/** Milliseconds after which something must be wrong. */
const PATIENCE = 300_000;

/** Requests to do. */
export interface Load {
  /** Where. */
  readonly socket: string;
  /** Queues, used at the same time. */
  readonly queues: number;
  /** Requests in flight on each queue. */
  readonly depth: number;
  /** Bytes of a request. */
  readonly size: number;
  /** Whether to write instead of reading. */
  readonly write: boolean;
  /** Requests on each queue. */
  readonly count: number;
}

/** Does requests with `qemu-img bench`, which has one queue. Returns requests a second. */
export async function qemuImgLoad({ socket, depth, size, write, count }: Load): Promise<number> {
  const { stdout } = await run(peerPath("qemu-img"), [
    ...["bench", "-c", String(count), "-d", String(depth), "-s", String(size), "-n", "-t", "none"],
    ...(write ? ["-w"] : []),
    ...["--image-opts", blkioDisk(socket)],
  ], { timeout: PATIENCE });
  const seconds = /completed in ([\d.]+) seconds/.exec(stdout)?.[1];
  if (seconds === undefined) throw new Error(`qemu-img bench said nothing about its time: ${stdout}`);
  // It prints milliseconds only.
  return count / Math.max(0.0005, Number(seconds));
}

/** `blkio.c`, compiled. */
export class Blkio {
  readonly #program: string;

  /** Compiles it; the program goes with the scope. */
  static async compile(scope: Scope): Promise<Blkio> {
    const program = join(tempDir(scope), "blkio");
    const source = fileURLToPath(new URL("blkio.c", import.meta.url));
    await run("cc", ["-O2", "-Wall", "-Werror", "-o", program, source, "-lblkio", "-lpthread"], {
      timeout: PATIENCE,
    });
    return new Blkio(program);
  }

  private constructor(program: string) {
    this.#program = program;
  }

  async #run(...args: (string | number)[]): Promise<number[][]> {
    const { stdout } = await run(this.#program, args.map(String), { timeout: PATIENCE });
    return stdout.trimEnd().split("\n").map((line) => line.split(" ").map(Number));
  }

  /** Does requests. Returns requests a second, of all queues together. */
  async load({ socket, queues, depth, size, write, count }: Load): Promise<number> {
    const [[seconds]] = await this.#run("load", socket, queues, depth, size, count, write ? "write" : "read");
    return queues * count / seconds;
  }

  /**
   * Reads one sector at a time, with a pause before each.
   *
   * @param pause µs
   * @returns for each how long it took, and after how long the disk began with it if it says so (0 otherwise), µs
   */
  async wake(socket: string, count: number, pause: number): Promise<{ trip: number; begin: number }[]> {
    return (await this.#run("wake", socket, count, pause)).map(([trip, begin]) => ({ trip, begin }));
  }

  /** Starts a back-end and ends it. Returns after how long its socket was there, and the first read complete, µs. */
  async start(socket: string, command: readonly string[]): Promise<{ socket: number; first: number }> {
    const [[there, first]] = await this.#run("start", socket, ...command);
    return { socket: there, first };
  }

  /** Connects, reads once on each queue, and stays until the function that is returned has been called. */
  async hold(scope: Scope, socket: string, queues: number): Promise<() => Promise<void>> {
    const child = Child.start(scope, this.#program, ["hold", socket, String(queues)], { pipe: true });
    await new Promise<void>((resolve, reject) => {
      child.stdout.once("data", () => resolve());
      void child.ended.then((code) =>
        reject(new Error(`blkio hold ended with status ${code}: ${child.output}`))
      );
    });
    return async () => {
      child.stdin.end();
      await child.ended;
    };
  }
}
