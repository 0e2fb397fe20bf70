/**
 * The pages of documentation: their links, the anchors that others may link to, and their blocks of code.
 *
 * @module
 */

import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import GithubSlugger from "github-slugger";
import MarkdownIt from "markdown-it";
import { root } from "../support/our_backend.ts";

const markdown = new MarkdownIt({ html: true });

/** A link of a page. */
export interface Link {
  /** As it is written. */
  readonly target: string;
  /** The line that its paragraph begins in, from 1. */
  readonly line: number;
}

/** A fenced block of code. */
export interface Block {
  /** What stands behind the fence: the language, and perhaps a word more. */
  readonly info: string;
  /** The code. */
  readonly text: string;
  /** The headings that it stands under, the innermost last. */
  readonly headings: readonly string[];
  /** The paragraph before it. */
  readonly before: string;
}

/** A page. */
export interface Page {
  /** From the root of the repository. */
  readonly path: string;
  /** Its links, those of pictures included. */
  readonly links: readonly Link[];
  /** Anchors, as GitHub makes them of headings. */
  readonly anchors: ReadonlySet<string>;
  /** Its blocks of code. */
  readonly blocks: readonly Block[];
}

/** Reads a page. */
export function readPage(path: string, text: string = readFileSync(join(root, path), "utf8")): Page {
  const links: Link[] = [];
  const blocks: Block[] = [];
  const slugger = new GithubSlugger();
  const anchors = new Set<string>();
  const headings: { level: number; title: string }[] = [];
  let before = "";
  let line = 1;
  const tokens = markdown.parse(text, {});
  for (const [i, token] of tokens.entries()) {
    if (token.type === "fence") {
      blocks.push({
        info: token.info.trim(),
        text: token.content,
        headings: headings.map(({ title }) => title),
        before,
      });
    }
    // Cells of a table have no line of their own.
    if (token.map !== null) line = token.map[0] + 1;
    if (token.type !== "inline") continue;
    const children = token.children ?? [];
    for (const child of children) {
      const target = child.attrGet("href") ?? child.attrGet("src");
      if (target !== null) links.push({ target: String(target), line });
    }
    const { type, tag } = tokens[i - 1];
    if (type === "heading_open") {
      // What is shown: code and text, without the marks.
      const title = children.map(({ content }) => content).join("");
      anchors.add(slugger.slug(title));
      const level = Number(tag.slice(1));
      while ((headings.at(-1)?.level ?? 0) >= level) headings.pop();
      headings.push({ level, title });
    } else before = token.content;
  }
  return { path, links, anchors, blocks };
}

/** Paths of all pages of the repository that people read. */
export function pagePaths(): string[] {
  const inside = (folder: string): string[] =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .map((path) => posix.join(folder, path))
      .filter((path) => path.endsWith(".md") && !path.includes("node_modules/"));
  const top = readdirSync(root).filter((name) => name.endsWith(".md"));
  return [...top, ...["docs", "examples", "scripts", "tests"].flatMap(inside)].sort();
}
