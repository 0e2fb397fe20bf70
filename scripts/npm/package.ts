/**
 * What the package for npm is: the one description that {@link file://../build_npm.ts} (dnt, for releases) and
 * {@link file://../pack_npm.ts} (`deno pack`, for tests) follow. Pure: nothing here reads or writes.
 *
 * @module
 */

/** What of `deno.json` counts. */
export interface DenoConfig {
  readonly name: string;
  readonly version: string;
  readonly exports: Readonly<Record<string, string>>;
  readonly imports: Readonly<Record<string, string>>;
}

/** The file that is the program of the command line. */
export const PROGRAM = "./src/cli/main.ts";

/** What the package imports from npm. `deno.json` says in which version. */
export const DEPENDENCIES: readonly string[] = ["@xterm/addon-fit", "@xterm/xterm", "koffi", "ws"];

/** What its type check needs besides: types of the oldest Node that it runs in, and of {@link DEPENDENCIES} that have none. */
export const TYPES: Readonly<Record<string, string>> = { "@types/node": "^22.0.0", "@types/ws": "^8.18.2" };

/** Files that go into the package as they are, from where to where. */
export const DOCUMENTS: Readonly<Record<string, string>> = {
  "scripts/npm/README.md": "README.md",
  "CHANGELOG.md": "CHANGELOG.md",
  "LICENSE": "LICENSE",
};

/** Node's file in place of Deno's: a file named `deno.ts` has a twin beside it, `node.ts`, with the same exports. */
export function twinOf(file: string): string | undefined {
  return /(^|\/)deno\.ts$/.test(file) ? file.replace(/deno\.ts$/, "node.ts") : undefined;
}

/** The files of a list that Node has twins of, with these, as dnt's `mappings` want it. */
export function mappings(files: readonly string[]): Record<string, string> {
  const twins: Record<string, string> = {};
  for (const file of files) {
    const twin = twinOf(file);
    if (twin === undefined) continue;
    if (!files.includes(twin)) throw new Error(`${file} has no twin for Node: ${twin} is missing`);
    twins[`./${file}`] = `./${twin}`;
  }
  return twins;
}

/** The range of versions that an entry of `imports` such as `npm:ws@8.23.0` stands for: all that promise to be compatible. */
export function rangeOf(name: string, specifier: string | undefined): string {
  const [, found, version] = /^npm:\/?((?:@[^/@]+\/)?[^/@]+)@\^?(\d+\.\d+\.\d+)\/?$/.exec(specifier ?? "") ??
    [];
  if (found !== name) {
    throw new Error(`deno.json must import ${name} as npm:${name}@1.2.3, and has ${specifier}`);
  }
  return `^${version}`;
}

/** `./esm/src/cli/mod.js` for `./src/cli/mod.ts` where code is in the folder `esm`. */
export function emitted(source: string, folder: string, extension: ".js" | ".d.ts" = ".js"): string {
  if (!/^\.\/.*[^.]\.ts$/.test(source)) throw new Error(`${source} is no path of a module, such as ./mod.ts`);
  return `./${folder}${source.slice(2).replace(/\.ts$/, extension)}`;
}

/** The licences that a file names for machines; JSR knows no choice between two, so `deno.json` does not say it. */
export function licenseIn(text: string): string {
  const [, expression] = /^SPDX-License-Identifier: (.+)$/m.exec(text) ?? [];
  if (expression === undefined) throw new Error("LICENSE has no line SPDX-License-Identifier");
  return expression;
}

/**
 * The `package.json`.
 *
 * @param license what {@link licenseIn} says
 * @param folder where the code is, with a slash at its end; empty for the root of the package
 */
export function packageJson(config: DenoConfig, license: string, folder: string): Record<string, unknown> {
  return {
    name: config.name,
    version: config.version,
    description: "Virtio devices for virtual machines, written in TypeScript: a vhost-user back-end toolkit",
    keywords: ["vhost-user", "virtio", "qemu", "virtual-machine", "block-device", "libblkio", "dpdk", "vmm"],
    license,
    type: "module",
    exports: {
      ...Object.fromEntries(
        Object.entries(config.exports).map(([name, source]) => [name, {
          types: emitted(source, folder, ".d.ts"),
          default: emitted(source, folder),
        }]),
      ),
      "./package.json": "./package.json",
    },
    bin: { "vhost-user": emitted(PROGRAM, folder) },
    engines: { node: ">=22" },
    os: ["linux"],
    cpu: ["x64", "arm64"],
    libc: ["glibc"],
    dependencies: Object.fromEntries(
      DEPENDENCIES.map((name) => [name, rangeOf(name, config.imports[name])]),
    ),
  };
}
