/**
 * A project of somebody else's that uses the package for npm.
 *
 * @module
 */

import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { filesIn, root } from "../../scripts/npm/files.ts";
import { type Scope, tempDir } from "../support/cleanup.ts";
import { type PeerName, peerPath } from "../support/peers.ts";
import { Child, type ChildOptions, run, type RunOptions, type RunResult } from "../support/process.ts";
import type { Contents } from "./contents.ts";

/** Versions of Node that the package is for. */
export const NODES = ["node22", "node24", "node26"] as const satisfies readonly PeerName[];

/** How long npm may take to fetch what it is asked for, ms. */
const PATIENCE = 300_000;

/**
 * The package as a file: the one that the variable `VHOST_NPM_PACKAGE` names, such as what dnt made, or one made by
 * `deno task pack-npm`.
 */
export async function packed(scope: Scope, signal: AbortSignal): Promise<string> {
  const given = process.env.VHOST_NPM_PACKAGE;
  if (given) return resolve(given);
  const file = join(tempDir(scope), "package.tgz");
  const program = join(root, "scripts/pack_npm.ts");
  await run(process.execPath, ["run", "--allow-all", program, file], { signal, timeout: PATIENCE });
  return file;
}

/** A folder with a `package.json`, in which the package is installed. */
export class Project {
  /** Its path. */
  readonly folder: string;
  readonly #scope: Scope;

  private constructor(scope: Scope, folder: string) {
    this.#scope = scope;
    this.folder = folder;
  }

  /** Makes an empty project, and has npm install packages. */
  static async install(scope: Scope, signal: AbortSignal, ...packages: string[]): Promise<Project> {
    const folder = tempDir(scope);
    writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
    const options = ["--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"];
    await run("npm", ["install", ...options, ...packages], { cwd: folder, signal, timeout: PATIENCE });
    return new Project(scope, folder);
  }

  /** The files of the package. */
  contents(): Contents {
    const folder = join(this.folder, "node_modules/@vhost/user");
    return new Map(filesIn(folder).map((path) => [path, readFileSync(join(folder, path), "utf8")]));
  }

  /** Writes a file. */
  write(path: string, text: string): void {
    mkdirSync(resolve(this.folder, path, ".."), { recursive: true });
    writeFileSync(join(this.folder, path), text);
  }

  /** Takes a file away. */
  remove(path: string): void {
    rmSync(join(this.folder, path));
  }

  /** The environment of a shell whose `node` has this version. */
  #shell(node: PeerName): { cwd: string; env: Record<string, string> } {
    const path = [resolve(peerPath(node), ".."), join(this.folder, "node_modules/.bin"), process.env.PATH];
    return { cwd: this.folder, env: { PATH: path.join(":"), NO_COLOR: "1" } };
  }

  /** Runs a program of the project's, or `node`, to its end. */
  async run(node: PeerName, words: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const [program, ...args] = words;
    return await run(program, args, { ...this.#shell(node), ...options });
  }

  /** Starts a program of the project's, or `node`. */
  start(node: PeerName, words: readonly string[], options: ChildOptions = {}): Child {
    const [program, ...args] = words;
    return Child.start(this.#scope, program, args, { ...this.#shell(node), ...options });
  }
}
