/**
 * Running a command.
 *
 * @module
 */

import { type Command, type Output, UsageError } from "./command.ts";
import { helpText } from "./help.ts";
import { parseCommand } from "./parse.ts";

/**
 * Parses and runs.
 *
 * @param program the words that name the command, such as `"vhost-user blk"`
 * @returns the exit code: 0 success, 1 failure, 2 a command line that cannot be understood
 */
export async function runCommand(
  program: string,
  command: Command,
  args: readonly string[],
  output: Output,
): Promise<number> {
  // By convention this excludes everything else, also options that do not exist.
  if (command.capabilities !== undefined && args.includes("--print-capabilities")) {
    output.out(JSON.stringify(command.capabilities));
    return 0;
  }
  // Who needs help may have got the rest wrong.
  if (args.includes("--help") || args.includes("-h")) {
    output.out(helpText(program, command, output.paint));
    return 0;
  }
  try {
    const { values, warnings } = parseCommand(command, args);
    for (const each of warnings) output.error(`warning: ${each}`);
    return await command.run(values, output);
  } catch (error) {
    output.error(`${program}: ${error instanceof Error ? error.message : error}`);
    if (!(error instanceof UsageError)) return 1;
    output.error(`Try '${program} --help'.`);
    return 2;
  }
}
