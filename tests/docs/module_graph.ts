/**
 * Which folders import which, drawn from the sources.
 *
 * @module
 */

import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { importsOf } from "../architecture.ts";
import { root } from "../support/our_backend.ts";

/** A folder of the toolkit; files of the root count as one each. */
export interface Folder {
  /** `ffi`, `src/backend`, `mod.ts`. */
  readonly name: string;
  /** Folders that they import. */
  readonly imports: Set<string>;
}

/** The folder that a path from the root belongs to. */
function folderOf(path: string): string {
  const parts = path.split("/");
  return parts[0] === "src" ? parts.slice(0, 2).join("/") : parts[0];
}

/** All folders that have something to do with a program that uses the toolkit. */
export function folders(): Map<string, Folder> {
  const found = new Map<string, Folder>();
  const paths = ["ffi", "src"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((path) => `${folder}/${path}`)
  );
  for (const path of [...paths.filter((path) => path.endsWith(".ts")).sort(), "mod.ts"]) {
    const name = folderOf(path);
    const folder = found.get(name) ?? { name, imports: new Set() };
    found.set(name, folder);
    const text = readFileSync(join(root, path), "utf8");
    for (const specifier of importsOf(text)) {
      if (!specifier.startsWith(".")) continue;
      const target = folderOf(posix.join(posix.dirname(path), specifier));
      if (target !== name) folder.imports.add(target);
    }
  }
  return found;
}

/** Imports that are left when those are not drawn that a longer way shows as well. There must be no circle. */
export function drawn(all: ReadonlyMap<string, Folder>): [from: string, to: string][] {
  const reached = (from: string, seen = new Set<string>()): Set<string> => {
    for (const to of all.get(from)?.imports ?? []) {
      if (!seen.has(to)) reached(to, seen.add(to));
    }
    return seen;
  };
  return [...all.values()].flatMap(({ name, imports }) =>
    [...imports].sort().flatMap((to): [string, string][] =>
      [...imports].some((other) => other !== to && reached(other).has(to)) ? [] : [[name, to]]
    )
  );
}

/** The folders as a Mermaid diagram: an arrow means "imports". */
export function layersDiagram(all: ReadonlyMap<string, Folder>): string[] {
  const id = (name: string): string => name.replace(/\W/g, "_");
  return [
    "```mermaid",
    "flowchart TD",
    ...[...all.keys()].map((name) => `  ${id(name)}["${name}"]`),
    ...drawn(all).map(([from, to]) => `  ${id(from)} --> ${id(to)}`),
    "```",
  ];
}
