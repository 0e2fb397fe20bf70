/**
 * How this program was started, to start it once more.
 *
 * @module
 */

import process from "node:process";
import { close, readBytes } from "../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";

/** The words that this process was started with. Deno itself lets only programs with all permissions read them. */
export function commandLine(): string[] {
  const fd = openFile("/proc/self/cmdline", OpenFlag.READ_ONLY);
  try {
    let text = "";
    const decoder = new TextDecoder();
    for (;;) {
      const bytes = readBytes(fd);
      if (bytes === null || bytes.length === 0) break;
      text += decoder.decode(bytes, { stream: true });
    }
    return text.split("\0").slice(0, -1);
  } finally {
    close(fd);
  }
}

/** The words before the arguments of this program: the runtime's options, among them the permissions, and the script. */
export function wordsBefore(args: readonly string[] = process.argv.slice(2)): string[] {
  const all = commandLine();
  const words = all.slice(1, all.length - args.length);
  if (!all.slice(1 + words.length).every((word, i) => word === args[i])) {
    throw new Error("it cannot be told how this program was started");
  }
  return words;
}

/** Options of Deno that say what specifiers mean, with and without a value in the next word. */
const RESOLUTION = /^(--config|-c|--import-map|--lock|--node-modules-dir)(=|$)|^--no-(config|lock)$/;

/** Those of {@link wordsBefore} that decide which modules a module imports. */
export function resolutionWords(words: readonly string[]): string[] {
  return words.filter((word, i) =>
    RESOLUTION.test(word) || /^(--config|-c|--import-map)$/.test(words[i - 1] ?? "")
  );
}
