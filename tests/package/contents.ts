/**
 * What is wrong with a package for npm, looked at as files.
 *
 * @module
 */

import { posix } from "node:path";
import { importsOf, withoutComments } from "../architecture.ts";

/** What of a `package.json` counts. */
export interface Manifest {
  readonly exports: Readonly<Record<string, string | Readonly<Record<string, string>>>>;
  readonly bin: Readonly<Record<string, string>>;
  readonly man: readonly string[];
  readonly dependencies: Readonly<Record<string, string>>;
}

/** Paths from the root of the package, and what is in them. */
export type Contents = ReadonlyMap<string, string>;

/** Files that are no code. */
const DOCUMENTS = ["CHANGELOG.md", "LICENSE", "README.md", "package.json"];

/** What dnt puts there; the second, up to 0.42, for Nodes that are older than ours. */
const EXTRA = /^esm\/(package\.json|_dnt\.polyfills\.(js|d\.ts))$/;

/** Code and its types. */
const CODE = /^(esm\/)?(mod|(ffi|src)\/.+)\.(js|d\.ts)$/;

/** What a module imports, also what it finds by the name that an import would have. */
function specifiersOf(code: string): string[] {
  const found = [...withoutComments(code).matchAll(/(?<![.\w])resolve\("([^"]+)"\)/g)];
  return [...importsOf(code), ...found.map(([, specifier]) => specifier)];
}

/** `ws` for `ws` and `ws/lib/x.js`, `@xterm/xterm` for `@xterm/xterm/css/xterm.css`. */
export function packageOf(specifier: string): string {
  return specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
}

/** Packages that a module needs besides those of the runtime. */
export function packagesOf(code: string): string[] {
  return specifiersOf(code).filter((specifier) => !/^(\.|node:|file:|data:)/.test(specifier)).map(packageOf);
}

/** Everything that is wrong, in words. */
export function defects(contents: Contents): string[] {
  const found: string[] = [];
  const manifest = JSON.parse(contents.get("package.json") ?? "{}") as Manifest;
  for (const path of DOCUMENTS) if (!contents.has(path)) found.push(`${path} is missing`);
  const named = [
    ...Object.values(manifest.exports).flatMap((target) =>
      typeof target === "string" ? [target] : Object.values(target)
    ),
    ...Object.values(manifest.bin),
    ...manifest.man,
  ];
  for (const target of named) {
    if (!contents.has(posix.normalize(target))) found.push(`package.json names ${target}, which is missing`);
  }
  for (const program of Object.values(manifest.bin)) {
    const [first] = (contents.get(posix.normalize(program)) ?? "").split("\n");
    if (first !== "#!/usr/bin/env node") found.push(`${program} begins with ${JSON.stringify(first)}`);
  }
  for (const [path, text] of contents) {
    if (DOCUMENTS.includes(path) || EXTRA.test(path) || manifest.man.includes(`./${path}`)) continue;
    if (!CODE.test(path)) {
      found.push(`${path} has no place in a package`);
      continue;
    }
    if (/\bDeno\s*(\?\.|\.|\[)/.test(withoutComments(text))) found.push(`${path} names Deno`);
    // dnt defines it in the entry points, and threads have none.
    if (text.includes("import-meta-ponyfill")) found.push(`${path} has a polyfill of import.meta`);
    for (const specifier of specifiersOf(text)) {
      if (!specifier.startsWith(".")) {
        if (/^(node|file|data):/.test(specifier)) continue;
        const name = packageOf(specifier);
        if (!Object.hasOwn(manifest.dependencies, name)) {
          found.push(`${path} needs ${specifier}, and package.json does not depend on it`);
        }
        continue;
      }
      // A thread's module is named as in the sources: the name follows the extension of the module that says it.
      const target = posix.join(posix.dirname(path), specifier).replace(/(\.d)?\.ts$|\.js$/, "");
      const wanted = path.endsWith(".d.ts") ? `${target}.d.ts` : `${target}.js`;
      if (!contents.has(wanted)) found.push(`${path} → ${specifier}, which is missing`);
    }
  }
  return found;
}
