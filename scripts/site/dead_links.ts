/**
 * Links of a site that has been built: whether the pages and headings are there that they lead to.
 *
 * @module
 */

import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";

/**
 * Links that lead nowhere, in words. Those to other sites are not tried.
 *
 * @param folder that has the site; it is served as the root of a server
 * @param exists whether there is a file
 */
export function deadLinksIn(folder: string, exists: (path: string) => boolean): string[] {
  const found: string[] = [];
  const ids = new Map<string, Set<string>>();
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((path) =>
    path.endsWith(".html")
  );
  const texts = new Map(files.map((path) => [path, readFileSync(join(folder, path), "utf8")]));
  for (const [path, text] of texts) {
    ids.set(path, new Set([...text.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => unescaped(id))));
  }
  for (const [path, text] of texts) {
    for (const [, written] of text.matchAll(/<(?:a|img)\s[^>]*?(?:href|src)="([^"]*)"/g)) {
      const target = unescaped(written);
      if (/^([a-z][a-z+.-]*:|\/\/|$)/i.test(target)) continue;
      const [location, anchor = ""] = target.split("#");
      const bare = decodeURIComponent(location.split("?")[0]);
      const file = bare === ""
        ? path
        : bare.startsWith("/")
        ? bare.slice(1)
        : posix.join(posix.dirname(path), bare);
      const page = [file, posix.join(file, "index.html")].find((each) => texts.has(each));
      if (page === undefined && (file === "" || file.endsWith("/") || !exists(join(folder, file)))) {
        found.push(`${path}: ${target}: there is no such page`);
      } else if (page !== undefined && anchor !== "" && !ids.get(page)?.has(decodeURIComponent(anchor))) {
        found.push(`${path}: ${target}: the page has no such heading`);
      }
    }
  }
  return [...new Set(found)];
}

const ENTITIES: Readonly<Record<string, string>> = { amp: "&", quot: '"', lt: "<", gt: ">" };

/** Text of an attribute, as it is meant. */
function unescaped(text: string): string {
  return text.replace(
    /&(?:#(\d+)|#x([\da-f]+)|(\w+));/gi,
    (all, decimal, hexadecimal, name) =>
      name !== undefined
        ? ENTITIES[name] ?? all
        : String.fromCodePoint(decimal !== undefined ? Number(decimal) : parseInt(hexadecimal, 16)),
  );
}
