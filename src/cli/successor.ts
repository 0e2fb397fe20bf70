/**
 * Starting the next version of a program that serves.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { errorText } from "../../mod.ts";
import type { Output } from "./command.ts";
import { commandLine } from "./own_program.ts";

const OPTION = "--takeover";

/** SIGUSR2: starts this command line again, which takes over. What is in its files by now is what it runs. */
export function startSuccessor(output: Output): void {
  const failed = (error: unknown): void =>
    output.error(
      `error: SIGUSR2: cannot start the next version: ${errorText(error)}; this one serves on. ` +
        `Give deno --allow-run and --allow-env, and this command --sandbox=off, or start it with ${OPTION}`,
    );
  try {
    const [program, ...words] = commandLine();
    const args = words.includes(OPTION) ? words : [...words, OPTION];
    const child = spawn(program, args, {
      stdio: ["ignore", "inherit", "inherit"],
      detached: true,
    });
    child.on("spawn", () => output.out(`SIGUSR2: started process ${child.pid}`));
    child.on("error", failed);
    child.unref();
  } catch (error) {
    failed(error);
  }
}
