/**
 * What the examples say of themselves: their files, and the commands in their module docs.
 *
 * @module
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../support/our_backend.ts";

/** Every file of the folder, by its path from the root. */
export function exampleFiles(): string[] {
  return readdirSync(join(root, "examples"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(root.length))
    .sort();
}

/** The comment at the head of a module, without its stars; `undefined` when there is none. */
export function moduleDoc(file: string): string | undefined {
  const text = readFileSync(join(root, file), "utf8");
  const [, comment] = /^\/\*\*\n([^]*?\n \* @module\n) \*\//.exec(text) ?? [];
  return comment?.replaceAll(/^ \* ?/gm, "");
}

/** The commands of a module doc, each in a line: what is indented and begins with Deno, or a variable for it. */
export function commandsOf(file: string): string[] {
  const doc = (moduleDoc(file) ?? "").replaceAll(/ \\\n\s*/g, " ");
  return doc.split("\n").flatMap((line) =>
    /^ {2,}((?:[A-Z_]+=\S+ )*deno (?:run|task) .*)$/.exec(line)?.[1] ?? []
  );
}

/** The words of a command, as a shell takes them. */
export function wordsOf(command: string): string[] {
  return [...command.matchAll(/(?:'[^']*'|[^\s'])+/g)].map(([word]) => word.replaceAll("'", ""));
}
