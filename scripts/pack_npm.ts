/**
 * Makes the package for npm without dnt, by `deno pack`: what the tests install in Node, as dnt is on JSR alone.
 *
 * ```sh
 * deno task pack-npm vhost-user.tgz
 * ```
 *
 * What the package is, is said in `npm/package.ts`. See docs/packaging.md.
 *
 * @module
 */

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { dropSources, manifestFor, putBeside, stage } from "./npm/files.ts";

const [out] = process.argv.slice(2);
if (out === undefined || out.startsWith("-")) {
  console.error("Usage: deno task pack-npm OUT.tgz");
  process.exit(2);
}

/** Runs a program, which says nothing as long as it succeeds. */
function run(cwd: string, program: string, ...args: string[]): string {
  return execFileSync(program, args, { cwd, stdio: ["ignore", "pipe", "pipe"], encoding: "utf8" });
}

const work = mkdtempSync(join(tmpdir(), "vhost-user-npm-"));
try {
  const sources = join(work, "sources");
  stage(sources);
  run(sources, process.execPath, "pack", "--allow-dirty", "--no-source-maps", `--output=${work}/denos.tgz`);
  run(work, "tar", "-xzf", "denos.tgz");
  // What Deno makes of deno.json has no program, and no conditions on where it runs.
  const made = join(work, "package");
  dropSources(made);
  putBeside(made, manifestFor(""));
  const [{ filename }] = JSON.parse(run(work, "npm", "pack", "--json", "./package")) as {
    filename: string;
  }[];
  mkdirSync(resolve(out, ".."), { recursive: true });
  copyFileSync(join(work, filename), resolve(out));
} finally {
  rmSync(work, { recursive: true });
}
