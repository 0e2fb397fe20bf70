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

import { build, emptyDir, type PackageJson } from "@deno/dnt";
import { mappings, PROGRAM, TYPES } from "./npm/package.ts";
import { manifestFor, modules, putBeside, readConfig } from "./npm/files.ts";

const [out = "npm"] = Deno.args;
const config = readConfig();
const manifest = manifestFor("esm/");
// dnt says in the folder of the code that it is modules; its runner of tests, outside, is none.
const { type: _, ...whileTesting } = manifest;

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
  test: true,
  rootTestDir: "tests",
  // Those that find nothing by its place among the sources. What is for users, tests/package/npm_test.ts tries.
  testPattern: "{memory,protocol,transport,virtqueue}/!(threads)_test.ts",
  // Node 22 has all that the toolkit uses. What dnt puts in the place of `import.meta` threads would not find.
  polyfills: false,
  compilerOptions: { target: "Latest", lib: ["ESNext"], skipLibCheck: false },
  package: { ...whileTesting, devDependencies: TYPES } as PackageJson,
});
putBeside(out, manifest);
