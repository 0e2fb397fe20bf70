// Runs the toolkit from its sources under Node, as `node --import CHECKOUT/scripts/node/hooks.mjs`: does what the package for
// npm has done for good. A file named deno.ts has a twin, node.ts, that stands in for it, packages come from where
// scripts/install-node has put them, and the toolkit's own names, which its examples use, mean what deno.json says.
import { readFileSync } from "node:fs";
import { enableCompileCache, registerHooks } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";

const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
const directory = process.env.VHOST_NODE_DIR ?? join(cache, "vhost-user", "node");
/** From here, packages are found. */
const parentURL = pathToFileURL(join(directory, "packages", "sources.js")).href;
// What a hundred and fifty modules are without their types need not be found out by each process that starts.
enableCompileCache(join(directory, "compiled"));

/** `name`, `@scope/name`, each with or without `npm:`, a version, and a path in it. */
const PACKAGE = /^(npm:\/?)?((?:@[\w.-]+\/)?[\w-][\w.-]*)(?:@[^/]+)?(\/.*)?$/;

const root = new URL("../../", import.meta.url);
const { name: ownName, exports: ownModules } = JSON.parse(readFileSync(new URL("deno.json", root), "utf8"));

registerHooks({
  // deno-lint-ignore explicit-function-return-type -- types are for TypeScript.
  resolve(specifier, context, next) {
    const [, , name, path = ""] = specifier.includes("\\") ? [] : PACKAGE.exec(specifier) ?? [];
    if (name === ownName) return next(new URL(ownModules[`.${path}`], root).href, context);
    const ours = !context.parentURL?.includes("/node_modules/");
    const resolved = ours && name !== undefined
      ? next(name + path, { ...context, parentURL })
      : next(specifier, context);
    // Saves Node from finding out that they are modules.
    const format = resolved.url.endsWith(".ts") && ours ? "module-typescript" : resolved.format;
    return { ...resolved, format, url: resolved.url.replace(/\/deno\.ts$/, "/node.ts") };
  },
});
