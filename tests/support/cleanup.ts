import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What ends: `node:test`'s test context, or anything else that calls back when it is over. */
export interface Scope {
  /** Registers a function to call at the end, however the end comes. */
  after(fn: () => void | Promise<void>): void;
}

const stacks = new WeakMap<Scope, (() => void | Promise<void>)[]>();

/**
 * Calls `fn` when the test is over: passed, failed or timed out. What was registered last is undone first
 * (`after` alone keeps the order of registration, so a directory would go before the program that writes to
 * it). Every function is called even if one throws; the first error is then thrown.
 */
export function onEnd(scope: Scope, fn: () => void | Promise<void>): void {
  const known = stacks.get(scope);
  if (known) {
    known.push(fn);
    return;
  }
  const stack = [fn];
  stacks.set(scope, stack);
  scope.after(async () => {
    const errors: unknown[] = [];
    for (let undo = stack.pop(); undo; undo = stack.pop()) {
      try {
        await undo();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  });
}

/** Makes a directory of the test's own, in `parent`, and removes it, with its contents, at the end. */
export function tempDir(scope: Scope, parent: string = tmpdir()): string {
  // Short, because the path of a Unix socket in it may have 107 bytes at most.
  const path = mkdtempSync(join(parent, "vu-"));
  onEnd(scope, () => rmSync(path, { recursive: true, force: true, maxRetries: 3 }));
  return path;
}
