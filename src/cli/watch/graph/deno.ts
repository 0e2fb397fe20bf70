/**
 * What modules a module is made of, as Deno says.
 *
 * @module
 */

import { execFile } from "node:child_process";
import process from "node:process";

/** What of `deno info --json` counts. */
interface Graph {
  readonly modules?: readonly { readonly specifier: string }[];
}

/**
 * URLs of the modules that a module consists of, also of those that are missing; of the module alone when the runtime does not say.
 *
 * @param resolution options of the runtime that say what specifiers mean
 */
export async function graph(module: URL, resolution: readonly string[]): Promise<string[]> {
  const args = ["info", "--json", ...resolution, module.href];
  const text = await new Promise<string>((resolve) =>
    execFile(
      process.execPath,
      args,
      { maxBuffer: 1 << 28, timeout: 30_000 },
      (error, stdout) => resolve(error === null ? stdout : "{}"),
    )
  );
  const modules = ((JSON.parse(text) as Graph).modules ?? []).map(({ specifier }) => specifier);
  return [...new Set([module.href, ...modules])];
}
