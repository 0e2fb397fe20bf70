import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { root } from "./our_backend.ts";

/** Whether what a test finds is to be written down rather than compared. */
export const recording: boolean = process.env.VHOST_RECORD === "1";

/**
 * Compares a part of a page of documentation with what the code says; with `VHOST_RECORD=1` in the environment it
 * writes it down. The part stands between `<!-- NAME -->` and `<!-- /NAME -->`.
 *
 * @param page path from the root
 */
export function checkGenerated(page: string, name: string, lines: readonly string[]): void {
  const path = join(root, page);
  const text = readFileSync(path, "utf8");
  const [open, close] = [`<!-- ${name} -->\n`, `<!-- /${name} -->`];
  const [from, to] = [text.indexOf(open), text.indexOf(close)];
  assert.ok(from >= 0 && to > from, `${page} has no part ${name}`);
  // A formatter would lay the tables out in its own way.
  const now = ["", "<!-- deno-fmt-ignore-start -->", "", ...lines, "", "<!-- deno-fmt-ignore-end -->", "", ""]
    .join("\n");
  const start = from + open.length;
  if (recording) writeFileSync(path, text.slice(0, start) + now + text.slice(to));
  else assert.equal(text.slice(start, to), now, `${page}, part ${name}: VHOST_RECORD=1 brings it up to date`);
}

/** Text for a cell of a table. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ").replace(/[<>*_]/g, (each) => `\\${each}`);
}

/** A table in Markdown; what is in backquotes stays as it is. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((each) => each.startsWith("`") ? each : cell(each)).join(" | ")} |`;
  return [line(head), `|${head.map(() => " --- |").join("")}`, ...rows.map(line)];
}
