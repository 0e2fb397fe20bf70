/**
 * What modules a module is made of, for Node, which does not say without running them.
 *
 * @module
 */

import { readFileSync } from "node:fs";

/** A string after the words that name a module; what looks like that in a comment costs a look at a file. */
const SPECIFIER = /(?:\bfrom|\bimport|\bimport\s*\(|\bURL\s*\()\s*(["'])(\.{1,2}\/[^"'\n]+|file:[^"'\n]+)\1/g;

/**
 * URLs of the modules that a module consists of, also of those that are missing: all that one of them names by a path. What
 * comes from packages stays as it is.
 *
 * @param _resolution options of the runtime, which for Node say nothing about paths
 */
export function graph(module: URL, _resolution: readonly string[]): Promise<string[]> {
  const found = new Set([module.href]);
  for (const url of found) {
    let text;
    try {
      text = readFileSync(new URL(url), "utf8");
    } catch {
      continue; // Not there yet, or not a file.
    }
    for (const [, , specifier] of text.matchAll(SPECIFIER)) found.add(new URL(specifier, url).href);
  }
  return Promise.resolve([...found]);
}
