import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { renderMermaidSVG } from "beautiful-mermaid";
import { deadLinksIn } from "../../scripts/site/dead_links.ts";
import { sidebar } from "../../scripts/site/sidebar.ts";
import { tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { pagePaths, readPage } from "./markdown.ts";

// What the site is made with; building all of it takes too long here. `deno task site` does, and checks what it has built.

const LIMIT = { timeout: 20_000 };

test("every diagram can be drawn", LIMIT, () => {
  const diagrams = pagePaths().flatMap((path) => readPage(path).blocks).filter(({ info }) =>
    info === "mermaid"
  );
  assert.ok(diagrams.length >= 3);
  for (const { text } of diagrams) {
    const picture = renderMermaidSVG(text);
    assert.match(picture, /^<svg[^]*<\/svg>$/);
    // Each name that the diagram gives to something is written in the picture.
    for (const [, label] of text.matchAll(/^ +\w+\["?([\w./ ]+)"?\]$/gm)) {
      assert.ok(picture.includes(label), label);
    }
  }
});

test("beside each page stands the map", LIMIT, () => {
  const groups = sidebar(readFileSync(join(root, "docs/README.md"), "utf8"));
  assert.deepEqual(groups[0], {
    text: "Begin here",
    collapsed: false,
    items: [{ text: "Start in five minutes", link: "/start" }],
  });
  assert.equal(groups.at(-1)?.text, "Devices");
  const links = new Set(groups.flatMap(({ items }) => items.map(({ link }) => link.replace(/#.*/, ""))));
  const pages = pagePaths().filter((path) => /^docs\/[^/]+\.md$/.test(path) && path !== "docs/README.md");
  assert.deepEqual(
    pages.map((path) => path.replace(/^docs(.*)\.md$/, "$1")).filter((link) => !links.has(link)),
    [],
  );
});

test("a link of the built site that leads nowhere is found", LIMIT, (t) => {
  const folder = tempDir(t);
  const put = (path: string, text: string): void => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  put(
    "index.html",
    '<h1 id="top">x</h1><a class="a" href="b/c.html#d">x</a><a href="/b/">x</a><a href="#top">x</a>',
  );
  put(
    "b/index.html",
    '<a href="https://example/">x</a><a href="&#x2e;&#46;/index.html">x</a><img src="/p.svg">',
  );
  put("b/c.html", '<h2 id="d">x</h2>');
  put("p.svg", "");
  assert.deepEqual(deadLinksIn(folder, existsSync), []);
  put("b/c.html", '<a href="../none.html">x</a><a href="/index.html#none">x</a><img alt="" src="none.svg">');
  assert.deepEqual(deadLinksIn(folder, existsSync).sort(), [
    "b/c.html: ../none.html: there is no such page",
    "b/c.html: /index.html#none: the page has no such heading",
    "b/c.html: none.svg: there is no such page",
    "index.html: b/c.html#d: the page has no such heading",
  ]);
});
