/**
 * Somebody who follows a page: saves what it shows, and types what it says, in an empty directory.
 *
 * A block `sh` is a command that ends; `sh stays` is one that goes on in a terminal of its own. A block `text` is what the
 * command before it shows. A block `ts` after "Save this as `NAME`" is a file. What stands under a heading "With X" is for those
 * who use X.
 *
 * @module
 */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { tempDir } from "../support/cleanup.ts";
import { Child, run } from "../support/process.ts";
import type { Block, Page } from "../docs/markdown.ts";

/** How long a command may take: some install packages. */
const PATIENCE = 120_000;

/** What a newcomer has. */
export interface Newcomer {
  /** What the headings call it: `Deno`, `Node`. */
  readonly uses: string;
  /** Variables of the environment. */
  readonly env: Record<string, string>;
  /** What is typed in place of a command; the command itself by default. */
  readonly typed?: (command: string) => string;
}

/** Why a block cannot be done in an empty directory, or `undefined` when it can. */
export function needs({ info, text }: Block): string | undefined {
  if (!/^sh( stays)?$/.test(info)) return "no command";
  if (/(^|\s)(scripts|examples|src)\/|\bdeno(@[\d.]+)? task /m.test(text)) return "a checkout";
  return /…/.test(text) ? "something of the reader's own" : undefined;
}

/** Output as a person sees it. */
function seen(output: string): string {
  // deno-lint-ignore no-control-regex
  return output.replace(/\x1b\[[\d;?]*[A-Za-z]|\x1bc|\r/g, "").replace(/[ \t]+/g, " ");
}

/** Whether all lines of a text are there, in order. */
function shows(output: string, text: string): boolean {
  let from = 0;
  for (const line of seen(text).split("\n").map((each) => each.trim()).filter((each) => each !== "")) {
    const at = seen(output).indexOf(line, from);
    if (at < 0) return false;
    from = at + line.length;
  }
  return true;
}

/** Follows a page to its end. Returns the commands that were typed. */
export async function follow(t: TestContext, page: Page, newcomer: Newcomer): Promise<string[]> {
  const { uses, env, typed = (command) => command } = newcomer;
  const cwd = tempDir(t);
  const commands: string[] = [];
  let last: { output: () => string; ended: () => boolean } | undefined;
  for (const block of page.blocks) {
    const others = block.headings.find((title) => title.startsWith("With "));
    if (others !== undefined && others !== `With ${uses}`) continue;
    const file = /Save this as `([^`]+)`/.exec(block.before);
    if (file !== null && block.info.startsWith("ts")) writeFileSync(join(cwd, file[1]), block.text);
    else if (block.info === "text") {
      assert.ok(last !== undefined, `${page.path}: nothing was typed that could show\n${block.text}`);
      const { output, ended } = last;
      for (const deadline = Date.now() + PATIENCE; !shows(output(), block.text); await sleep(50)) {
        assert.ok(
          !ended() && Date.now() < deadline,
          `${page.path}: in vain:\n${block.text}\nshown:\n${output()}`,
        );
      }
    } else if (needs(block) === undefined) {
      const script = typed(block.text);
      commands.push(...script.trim().split("\n"));
      if (block.info === "sh stays") {
        const child = Child.start(t, "bash", ["-ec", script], { cwd, env });
        last = { output: () => child.output, ended: () => child.code !== undefined };
      } else {
        const { stdout, stderr } = await run("bash", ["-ec", script], {
          cwd,
          env,
          timeout: PATIENCE,
          signal: t.signal,
        });
        last = { output: () => stdout + stderr, ended: () => true };
      }
    }
  }
  return commands;
}
