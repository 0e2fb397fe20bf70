/**
 * The runtime that runs the tests. What a test starts of ours, it starts in the same one.
 *
 * @module
 */

import process from "node:process";
import { fileURLToPath } from "node:url";

/** Which one it is. */
export const runtime: "deno" | "node" = process.versions.deno === undefined ? "node" : "deno";

/** Where Node finds our modules: what runs the tests under Node has it as well. */
const hooks = fileURLToPath(new URL("../../scripts/node/hooks.mjs", import.meta.url));

/** Deno's way to hand options to the engine, which both have in common. */
const ENGINE = "--v8-flags=";

/**
 * What comes after `process.execPath` to start a program of ours.
 *
 * @param options Deno's: permissions and the like. Node has no permissions; it gets what is for the engine
 * @param program the script and its arguments
 */
export function startWords(options: readonly string[], program: readonly string[]): string[] {
  if (runtime === "deno") return ["run", ...options, ...program];
  const engine = options.filter((option) => option.startsWith(ENGINE)).map((option) =>
    option.slice(ENGINE.length)
  );
  return [`--import=${hooks}`, ...engine, ...program];
}

/** The same in one list: Deno's options are the words that begin with a dash before the script. */
export function splitWords(words: readonly string[]): [options: string[], program: string[]] {
  const script = words.findIndex((word) => !word.startsWith("-"));
  return [words.slice(0, script), words.slice(script)];
}
