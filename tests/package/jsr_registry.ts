/**
 * A stand-in for the registry JSR on loopback: takes what `deno publish` sends, and serves it as JSR would, so that `jsr:`
 * imports are remote modules. It does not look into a package as JSR does when that is published; what is known of its
 * rules is tested beside.
 *
 * @module
 */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join, relative } from "node:path";
import process from "node:process";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { run, type RunResult } from "../support/process.ts";

/** The parts of `deno.json` that publishing is about. */
export interface PackageConfig {
  /** `@scope/name`. */
  readonly name: string;
  /** Semantic version. */
  readonly version: string;
  /** SPDX. */
  readonly license: string;
  /** Files by entry point. */
  readonly exports: Readonly<Record<string, string>>;
}

/** The package as its `deno.json` describes it. */
export const config: PackageConfig = JSON.parse(readFileSync(join(root, "deno.json"), "utf8"));

/** All files in a folder, as paths from there, sorted. */
export function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .sort();
}

/** What Deno is started with so that it shows nothing but its errors, and keeps nothing of what others have. */
const QUIET = { NO_COLOR: "1", RUST_BACKTRACE: "0", DENO_NO_UPDATE_CHECK: "1", DENO_NO_PROMPT: "1" };

/** A cache of modules that is the test's own, but for packages of npm, which do not change. */
export async function ownCache(scope: Scope): Promise<string> {
  const folder = tempDir(scope);
  const { stdout } = await run(process.execPath, ["info", "--json"], { env: QUIET });
  const { npmCache } = JSON.parse(stdout);
  mkdirSync(npmCache, { recursive: true });
  symlinkSync(npmCache, join(folder, "npm"));
  return folder;
}

/** The registry. */
export class JsrRegistry {
  /** What `JSR_URL` should be. */
  readonly url: string;
  /** Every request that came: method and path. */
  readonly requests: string[] = [];
  /** The archive that was published, as it came. */
  readonly archive: string;
  /** What was in it. */
  readonly folder: string;
  /** The environment of somebody who knows only this registry, and has never run anything. */
  readonly env: Record<string, string>;

  private constructor(folder: string, cache: string, port: number) {
    this.url = `http://127.0.0.1:${port}`;
    this.archive = join(folder, "package.tgz");
    this.folder = join(folder, "package");
    this.env = { ...QUIET, JSR_URL: this.url, DENO_DIR: cache };
  }

  /** Starts one. It ends with the test. */
  static async start(scope: Scope): Promise<JsrRegistry> {
    const server = createServer((request, response) => void registry.#answer(request, response));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onEnd(scope, () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }));
    const { port } = server.address() as AddressInfo;
    const registry = new JsrRegistry(tempDir(scope), await ownCache(scope), port);
    return registry;
  }

  /** Publishes the package of this checkout, and returns what `deno publish` says. */
  async publish(signal?: AbortSignal): Promise<RunResult> {
    // `deno task check` has checked the types.
    const args = ["publish", "--token=none", "--no-provenance", "--allow-dirty", "--no-check"];
    // Its own cache would have it check all types once more.
    const env = { ...QUIET, JSR_URL: this.url };
    const result = await run(process.execPath, args, { cwd: root, env, signal, timeout: 200_000 });
    mkdirSync(this.folder);
    await run("tar", ["-xzf", this.archive, "-C", this.folder]);
    return result;
  }

  /** Modules that were asked for since the last call. */
  takeRequests(): string[] {
    return this.requests.splice(0);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "", url = "" } = request;
    this.requests.push(`${method} ${url}`);
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const send = (status: number, type: string, body: string | Uint8Array): void => {
      response.writeHead(status, { "content-type": type });
      response.end(body);
    };
    const json = (status: number, value: unknown): void =>
      send(status, "application/json", JSON.stringify(value));
    const [scope, name] = config.name.slice(1).split("/");
    const api = `/api/scopes/${scope}/packages/${name}`;
    const { pathname } = new URL(url, this.url);
    if (method === "POST" && pathname === `${api}/versions/${config.version}`) {
      writeFileSync(this.archive, Buffer.concat(chunks));
      return json(200, { id: "task", status: "success", error: null });
    }
    if (method === "GET" && pathname === api) return json(200, { scope, name });
    if (pathname === `/${config.name}/meta.json`) {
      return json(200, { scope, name, latest: config.version, versions: { [config.version]: {} } });
    }
    if (pathname === `/${config.name}/${config.version}_meta.json`) return json(200, this.#metadata());
    const prefix = `/${config.name}/${config.version}/`;
    const file = join(this.folder, decodeURIComponent(pathname.slice(prefix.length)));
    if (method === "GET" && pathname.startsWith(prefix) && existsSync(file) && statSync(file).isFile()) {
      return send(200, file.endsWith(".ts") ? "application/typescript" : "text/plain", readFileSync(file));
    }
    json(404, { code: "notFound", message: `no ${method} ${pathname}` });
  }

  #metadata(): unknown {
    const manifest = Object.fromEntries(
      filesIn(this.folder).map((path) => {
        const bytes = readFileSync(join(this.folder, path));
        const checksum = `sha256-${createHash("sha256").update(bytes).digest("hex")}`;
        return [`/${path}`, { size: bytes.length, checksum }];
      }),
    );
    const { exports } = JSON.parse(readFileSync(join(this.folder, "deno.json"), "utf8"));
    assert.deepEqual(exports, config.exports);
    return { manifest, exports };
  }
}
