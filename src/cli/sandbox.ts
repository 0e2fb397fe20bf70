/**
 * `--sandbox`: a command that is set up gives up what it does not need any more.
 *
 * @module
 */

import { dirname } from "node:path";
import { Confinement, type Log, type Needs } from "../../mod.ts";
import type { Options, Values } from "./command.ts";

const MODES = ["auto", "required", "programs", "off"] as const;

/** How much a command insists on its sandbox. */
export type SandboxMode = typeof MODES[number];

/** The option. */
export const sandboxOption: Options = {
  "sandbox": {
    value: "HOW",
    choices: MODES,
    help: "Once set up, give up what the device does not need any more: files, sockets, programs.\n" +
      "auto (default): as far as the kernel can; required: or do not start; programs: let it start\n" +
      "any, which refuses only what is dangerous; off (docs/security.md).",
  },
};

/** The value of the option. */
export function sandboxMode({ sandbox = "auto" }: Values): SandboxMode {
  return sandbox as SandboxMode;
}

/** Adds the removal of socket files at the end to what is needed. */
export function withSockets(needs: Needs, paths: readonly (string | undefined)[]): Needs {
  if (needs.files === "any") return needs;
  const directories = new Set(paths.flatMap((path) => path === undefined ? [] : [dirname(path)]));
  const removed = [...directories].map((path) => ({ path, access: "remove" }) as const);
  return { ...needs, files: [...needs.files ?? [], ...removed] };
}

/**
 * Enters the sandbox.
 *
 * @throws {Error} when it is required and the kernel lacks a part
 */
export async function enterSandbox(needs: Needs, mode: SandboxMode, log: Log): Promise<void> {
  if (mode === "off") return;
  const missing = Confinement.missing();
  if (missing !== undefined && mode === "required") {
    throw new Error(`--sandbox=required: the kernel has no ${missing}`);
  }
  const confinement = new Confinement(mode === "programs" ? { programs: true } : needs);
  const { calls, noFiles, landlock, everyThread } = await confinement.enter();
  if (missing !== undefined) {
    // Landlock has little to do where nothing is opened.
    log(
      calls && noFiles ? "info" : "warning",
      `sandbox: the kernel has no ${missing}; there is that much less of it`,
    );
  }
  const parts = [
    ...calls ? [`system calls filtered${noFiles ? ", none opens a file" : ""}`] : [],
    ...landlock > 0 ? [`Landlock ${landlock} for ${everyThread ? "all threads" : "the main thread"}`] : [],
  ];
  log("info", `sandbox: ${parts.length === 0 ? "none" : parts.join("; ")}`, undefined, { event: "sandbox" });
}
