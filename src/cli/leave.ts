/**
 * The end of the program.
 *
 * @module
 */

import process from "node:process";
import type { Writable } from "node:stream";

/** Settles when all that was written has been taken, or nobody is there any more to take it. */
async function written(stream: Writable): Promise<void> {
  if (stream.writableLength > 0) await new Promise<void>((resolve) => void stream.write("", () => resolve()));
}

/** Ends the process, once its output has gone: Node keeps what a full pipe does not take, and would drop it. */
export async function leave(code: number): Promise<never> {
  await Promise.all([written(process.stdout), written(process.stderr)]);
  process.exit(code);
}
