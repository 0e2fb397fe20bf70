/**
 * A stand-in for the registry of npm on loopback, for one scope: has the package of this checkout, as it would be published.
 * All other packages come from where they always do.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { run } from "../support/process.ts";

/**
 * Starts a registry that has one package. It ends with the test.
 *
 * @param tarball as `npm pack` writes it
 * @returns the environment of somebody who knows this registry
 */
export async function npmRegistry(scope: Scope, tarball: string): Promise<Record<string, string>> {
  const bytes = readFileSync(tarball);
  const { stdout } = await run("tar", ["-xzOf", tarball, "package/package.json"]);
  const manifest = JSON.parse(stdout) as { name: string; version: string };
  const { name, version } = manifest;
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? "");
    if (path === `/${name}`) {
      const dist = {
        tarball: `${address}/package.tgz`,
        integrity: `sha512-${createHash("sha512").update(bytes).digest("base64")}`,
      };
      const versions = { [version]: { ...manifest, dist } };
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ name, "dist-tags": { latest: version }, versions }));
    } else if (path === "/package.tgz") response.end(bytes);
    else {
      response.statusCode = 404;
      response.end();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onEnd(scope, () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    }));
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  // What the user has said about registries stays.
  const own = process.env.NPM_CONFIG_USERCONFIG ?? join(homedir(), ".npmrc");
  const before = existsSync(own) ? readFileSync(own, "utf8") : "";
  const config = join(tempDir(scope), "npmrc");
  writeFileSync(config, `${before}\n${name.split("/")[0]}:registry=${address}\n`);
  return { NPM_CONFIG_USERCONFIG: config, NPM_CONFIG_UPDATE_NOTIFIER: "false" };
}
