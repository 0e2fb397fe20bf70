/**
 * The files of the package for npm: which modules go in, what is put beside them.
 *
 * @module
 */

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { type DenoConfig, DOCUMENTS, licenseIn, mappings, packageJson, PROGRAM } from "./package.ts";

/** The root of the project. */
export const root: string = fileURLToPath(new URL("../../", import.meta.url));

/** `deno.json`. */
export function readConfig(): DenoConfig {
  return JSON.parse(readFileSync(join(root, "deno.json"), "utf8"));
}

/** The `package.json`, with code in a folder, as in {@link packageJson}. */
export function manifestFor(folder: string): Record<string, unknown> {
  return packageJson(readConfig(), licenseIn(readFileSync(join(root, "LICENSE"), "utf8")), folder);
}

/** The files in a folder and in those inside it, as paths from it, sorted. */
export function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => statSync(join(folder, path)).isFile())
    .sort();
}

/** The modules of the package, as paths from the root of the project. */
export function modules(): string[] {
  const inside = ["ffi", "src"].flatMap((folder) =>
    filesIn(join(root, folder)).map((path) => `${folder}/${path}`)
  );
  return ["mod.ts", ...inside].filter((path) => path.endsWith(".ts"));
}

/** The folder of a package that its manual pages are in. */
const MAN = "man";

/** Puts into a package what is not made from modules: its `package.json`, the manual pages and the documents. */
export function putBeside(out: string, manifest: Readonly<Record<string, unknown>>): void {
  const folder = join(out, MAN);
  const command = [join(root, "src/cli/mod.ts"), "man", `--dir=${folder}`];
  execFileSync(process.execPath, ["run", "--allow-ffi", `--allow-write=${folder}`, ...command], {
    cwd: root,
    stdio: "pipe",
  });
  const man = readdirSync(folder).sort().map((file) => `./${MAN}/${file}`);
  writeFileSync(join(out, "package.json"), JSON.stringify({ ...manifest, man }, undefined, 2) + "\n");
  for (const [from, to] of Object.entries(DOCUMENTS)) {
    mkdirSync(dirname(join(out, to)), { recursive: true });
    copyFileSync(join(root, from), join(out, to));
  }
}

/** Puts into a folder the sources as Node wants them, for `deno pack`. */
export function stage(out: string): void {
  const all = modules();
  const twins = mappings(all);
  const placed = new Set(Object.values(twins));
  for (const path of all) {
    const module = `./${path}`;
    if (placed.has(module)) continue;
    const text = readFileSync(join(root, twins[module] ?? path), "utf8");
    mkdirSync(dirname(join(out, path)), { recursive: true });
    writeFileSync(join(out, path), module === PROGRAM ? `#!/usr/bin/env node\n${text}` : text);
  }
  const { name, version, exports, imports } = readConfig();
  // JavaScript is made of what an export leads to.
  const config = { name, version, exports: { ...exports, "./program": PROGRAM }, imports };
  writeFileSync(join(out, "deno.json"), JSON.stringify(config));
}

/** Takes out of a package the modules that nothing in it leads to, and of which no JavaScript was made. */
export function dropSources(out: string): void {
  for (const path of filesIn(out)) if (/(?<!\.d)\.ts$/.test(path)) rmSync(join(out, path));
}
