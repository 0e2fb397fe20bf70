import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { test } from "node:test";
import { root } from "../support/our_backend.ts";
import { type Page, pagePaths, readPage } from "./markdown.ts";

// Links of the documentation: to pages, headings and files of the repository. The site has the same anchors.

const LIMIT = { timeout: 20_000 };

/** Whether something is there under a path from the root. */
type Exists = (path: string) => boolean;

const inRepository: Exists = (path) => existsSync(join(root, path));

/** Links that lead nowhere, in words. */
function deadLinks(pages: ReadonlyMap<string, Page>, exists: Exists = inRepository): string[] {
  const found: string[] = [];
  for (const page of pages.values()) {
    for (const { target, line } of page.links) {
      if (/^[a-z][a-z+.-]*:/i.test(target)) continue;
      const [path, anchor] = target.split("#");
      const file = path === ""
        ? page.path
        : posix.join(posix.dirname(page.path), decodeURIComponent(path)).replace(/\/$/, "");
      const dead = (why: string): number => found.push(`${page.path}:${line}: ${target}: ${why}`);
      if (path.startsWith("/")) dead("begins at the root of a server");
      else if (file.startsWith("..")) dead("is outside of the repository");
      else if (!exists(file)) dead("there is no such file");
      else if (anchor !== undefined) {
        const other = pages.get(file);
        if (other === undefined) dead("only pages have headings");
        else if (!other.anchors.has(anchor)) {
          dead(`no such heading; there are ${[...other.anchors].join(", ")}`);
        }
      }
    }
  }
  return found;
}

function pagesOf(texts: Readonly<Record<string, string>>): Map<string, Page> {
  return new Map(Object.entries(texts).map(([path, text]) => [path, readPage(path, text)]));
}

const pages = new Map(pagePaths().map((path) => [path, readPage(path)]));

test("no link is dead", LIMIT, () => {
  const links = [...pages.values()].flatMap(({ links }) => links);
  assert.ok(pages.size > 30 && links.length > 300, `${pages.size} pages, ${links.length} links`);
  const dead = deadLinks(pages);
  assert.deepEqual(dead, [], `dead links:\n  ${dead.join("\n  ")}`);
});

test("what is dead is found", LIMIT, () => {
  const dead = (text: string): string[] =>
    deadLinks(
      pagesOf({
        "docs/a.md": text,
        "docs/b.md": "# The `--fd` option, twice\n\n# The `--fd` option, twice\n",
      }),
      (path) => ["docs", "docs/a.md", "docs/b.md", "src/x.ts"].includes(path),
    ).map((line) => line.replace("docs/a.md:", ""));
  assert.deepEqual(
    dead("[b](b.md) [x](../src/x.ts) [s](https://example/) [d](../docs/) [self](#top)\n\n# Top"),
    [],
  );
  assert.deepEqual(dead("[b](b.md#the---fd-option-twice) [b](b.md#the---fd-option-twice-1)"), []);
  assert.deepEqual(dead("text\n\n[c](c.md)"), ["3: c.md: there is no such file"]);
  assert.deepEqual(dead("![c](c.png)"), ["1: c.png: there is no such file"]);
  assert.deepEqual(dead("[c]\n\n[c]: c.md"), ["1: c.md: there is no such file"]);
  assert.deepEqual(dead("[b](b.md#top)"), [
    "1: b.md#top: no such heading; there are the---fd-option-twice, the---fd-option-twice-1",
  ]);
  assert.deepEqual(dead("[x](../src/x.ts#top)"), ["1: ../src/x.ts#top: only pages have headings"]);
  assert.deepEqual(dead("[x](../../x.ts)"), ["1: ../../x.ts: is outside of the repository"]);
  assert.deepEqual(dead("[x](/docs/b.md)"), ["1: /docs/b.md: begins at the root of a server"]);
  assert.deepEqual(dead("```md\n[c](c.md)\n```\n\n`[c](c.md)`"), []);
});

test("the map leads to every page", LIMIT, () => {
  const map = pages.get("docs/README.md");
  assert.ok(map !== undefined);
  const linked = new Set(map.links.map(({ target }) => posix.join("docs", target.split("#")[0])));
  const all = [...pages.keys()].filter((path) => /^docs\/[^/]+\.md$/.test(path) && path !== map.path);
  assert.deepEqual(all.filter((path) => !linked.has(path)), []);
});

test("versions that pages name are this one", LIMIT, () => {
  const { name, version } = JSON.parse(readFileSync(join(root, "deno.json"), "utf8"));
  for (const path of pages.keys()) {
    const text = readFileSync(join(root, path), "utf8");
    for (const [, named] of text.matchAll(new RegExp(`${name}@(\\d[\\w.-]*)`, "g"))) {
      assert.equal(named, version, path);
    }
  }
});
