import process from "node:process";
import type { Scope } from "../support/cleanup.ts";
import { Child } from "../support/process.ts";
import { startWords } from "../support/runtime.ts";

/** Starts a program of ours, under Deno with these permissions and no others, and without the recorder of evidence, for which a sandbox is looser. */
export function startExactly(scope: Scope, permissions: readonly string[], args: readonly string[]): Child {
  return Child.start(scope, process.execPath, startWords(["--no-prompt", ...permissions], args), {
    env: { RUST_BACKTRACE: "0", NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
  });
}
