/**
 * Builds the package for npm with dnt, and runs the tests of its modules in Node:
 *
 * ```sh
 * deno run --allow-all scripts/build_npm.ts npm
 * ```
 *
 * What the package is, is said in `npm/package.ts`. See docs/packaging.md.
 *
 * @module
 */

import { build, emptyDir } from "@deno/dnt";
import { mappings, PROGRAM, TYPES } from "./npm/package.ts";
import { manifestFor, modules, putBeside, readConfig } from "./npm/files.ts";

const [out = "npm"] = Deno.args;
const config = readConfig();
const manifest = manifestFor("esm/");

await emptyDir(out);
await build({
  entryPoints: [
    ...Object.entries(config.exports).map(([name, path]) => ({ name, path })),
    { kind: "bin", name: "vhost-user", path: PROGRAM },
  ],
  outDir: out,
  importMap: "deno.json",
  mappings: mappings(modules()),
  shims: {},
  scriptModule: false,
  declaration: "inline",
  declarationMap: false,
  skipSourceOutput: true,
  test: false,
  // Node 22 has all of it that the toolkit says, and dnt adds nothing for older ones.
  compilerOptions: { target: "Latest", lib: ["ESNext"], skipLibCheck: false },
  // dnt needs the dependencies; the rest is written at the end.
  package: { ...manifest, devDependencies: TYPES },
  postBuild: () => putBeside(out, manifest),
});
