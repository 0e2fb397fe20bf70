/** The page docs/writing-a-device.md as tests read it. */

import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { root } from "../support/our_backend.ts";

const PAGE = "docs/writing-a-device.md";

/** What stands between three backticks. */
export interface Block {
  readonly language: string;
  readonly text: string;
  /** The file that was linked last before it. */
  readonly file: string;
}

/** The fenced blocks of the page, in order. */
export function blocks(): Block[] {
  const found: Block[] = [];
  let file = "";
  let open: { language: string; lines: string[] } | undefined;
  for (const line of readFileSync(join(root, PAGE), "utf8").split("\n")) {
    if (line.startsWith("```")) {
      if (open === undefined) open = { language: /\w+/.exec(line)?.[0] ?? "", lines: [] };
      else {
        found.push({ language: open.language, text: open.lines.join("\n"), file });
        open = undefined;
      }
    } else if (open !== undefined) open.lines.push(line);
    else {
      const link = /\]\((\.\.\/[^)]*\.(?:ts|c))\)/.exec(line);
      if (link !== null) file = normalize(join(dirname(PAGE), link[1]));
    }
  }
  return found;
}

/** Commands of the page's shell blocks, each in a line. */
export function commands(): string[] {
  const shell = blocks().filter(({ language }) => language === "sh");
  return shell.flatMap(({ text }) => text.replaceAll(/ \\\n\s*/g, " ").split("\n"));
}
