import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import process from "node:process";

/** The program `name` on the search path (and in the places of system programs), or undefined. */
export function which(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/sbin", "/usr/libexec"];
  return firstFile(folders.map((folder) => join(folder, name)), constants.X_OK);
}

/** The first of `paths` that is a file this process may read (or use as `mode` says), or undefined. */
export function firstFile(paths: readonly string[], mode: number = constants.R_OK): string | undefined {
  return paths.find((path) => {
    try {
      accessSync(path, mode);
      return statSync(path).isFile();
    } catch {
      return false;
    }
  });
}
