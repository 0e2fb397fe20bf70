import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { tempDir } from "../support/cleanup.ts";
import type { Scope } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";

/** A folder with modules, as somebody has who writes a device. */
export class Modules {
  /** Where it is. */
  readonly folder: string;

  /** It goes with the test. */
  constructor(scope: Scope) {
    this.folder = tempDir(scope);
  }

  /** Where a module is. */
  path(name: string): string {
    return join(this.folder, name);
  }

  /** Writes a module; `@vhost/user` in it is this project. Returns its path. */
  write(name: string, source: string): string {
    const path = this.path(name);
    writeFileSync(path, source.replaceAll('"@vhost/user', `"${root}mod.ts`));
    return path;
  }

  /** The same as many editors do it: a new file takes the place of the old one. */
  replace(name: string, source: string): void {
    this.write(`${name}.new`, source);
    renameSync(this.path(`${name}.new`), this.path(name));
  }
}
