/**
 * Builds the documentation as a site: `deno task site` writes `site/html`, which any web server can serve, or a browser
 * open by one (`deno task site --serve`).
 *
 * The pages are those of `docs/`, as they are; files of the repository that they link to become pages, too. The reference is
 * made by `deno doc`. Diagrams become pictures. What a link may lead to is tested before (`tests/docs/links_test.ts`), and
 * here once more in what has been built.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, posix } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { renderMermaidSVG } from "beautiful-mermaid";
import { deadLinksIn } from "./dead_links.ts";
import { sidebar } from "./sidebar.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const here = join(root, "scripts/site");
const work = join(root, "site/work");
const source = join(work, "src");
const html = join(root, "site/html");

/** Pages of the site by what they are made from: paths from the root of the repository, and of the site. */
const pages = new Map<string, string>();
const waiting: string[] = [];

/** Where a file or folder of the repository is on the site. It is put there if it is not yet. */
function pageOf(path: string): string {
  const known = pages.get(path);
  if (known !== undefined) return known;
  const page = path === "docs/README.md"
    ? "index.md"
    : /^docs\/[^/]+\.md$/.test(path)
    ? posix.basename(path)
    : `files/${path.replace(/\.md$/, "")}.md`;
  pages.set(path, page);
  waiting.push(path);
  return page;
}

/** Leads the links of a page to where their targets are on the site. Blocks of code stay as they are. */
function withLinks(text: string, from: string): string {
  let inCode = false;
  const lead = (target: string): string => {
    if (/^([a-z][a-z+.-]*:|#)/i.test(target)) return target;
    const [path, anchor] = target.split("#");
    const file = posix.join(posix.dirname(from), decodeURIComponent(path)).replace(/\/$/, "");
    const page = posix.relative(posix.dirname(pageOf(from)), pageOf(file));
    return `${page.startsWith(".") ? page : `./${page}`}${anchor === undefined ? "" : `#${anchor}`}`;
  };
  return text.split("\n").map((line) => {
    if (line.startsWith("```")) inCode = !inCode;
    if (inCode) return line;
    const definition = /^(\[[^\]]+\]: )(\S+)$/.exec(line);
    if (definition !== null) return `${definition[1]}${lead(definition[2])}`;
    return line.replace(/\]\(([^)\s]+)\)/g, (_, target) => `](${lead(target)})`);
  }).join("\n");
}

let diagrams = 0;

/** Colours of diagrams, which are on white paper also where a page is dark. */
const PAPER = { bg: "#ffffff", fg: "#18181b", line: "#52525b", muted: "#27272a", border: "#71717a" };

/** Puts pictures in the place of diagrams. */
function withPictures(text: string): string {
  return text.replace(/^```mermaid\n([^]*?)^```$/gm, (_, diagram: string) => {
    const name = `diagrams/${++diagrams}.svg`;
    mkdirSync(join(source, "public/diagrams"), { recursive: true });
    writeFileSync(join(source, "public", name), renderMermaidSVG(diagram, PAPER));
    return `![diagram](/${name})`;
  });
}

/** A page that shows a file, or what is in a folder. */
function shown(path: string): string {
  const title = `# \`${path}\`\n\n`;
  const absolute = join(root, path);
  if (statSync(absolute).isDirectory()) {
    const list = readdirSync(absolute).sort().map((name) =>
      `- [\`${name}\`](${posix.basename(path)}/${name})`
    ).join("\n");
    return withLinks(`${title}${list}\n`, path);
  }
  const text = readFileSync(absolute, "utf8");
  const language = /\.(\w+)$/.exec(path)?.[1] ?? "sh";
  const known = { service: "ini", socket: "ini", lock: "json" }[language] ?? language;
  return `${title}\`\`\`\`${known}\n${text}${text.endsWith("\n") ? "" : "\n"}\`\`\`\`\n`;
}

function put(path: string): void {
  const target = join(source, pageOf(path));
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(
    target,
    path.endsWith(".md")
      ? withPictures(withLinks(readFileSync(join(root, path), "utf8"), path))
      : shown(path),
  );
}

/** Runs Deno, and ends when that fails. */
function deno(args: readonly string[], cwd: string): void {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd, encoding: "utf8" });
  if (status === 0) return;
  console.error(`deno ${args.join(" ")} ended with status ${status}\n${stdout}${stderr}`);
  process.exit(1);
}

for (const path of [source, html]) rmSync(path, { recursive: true, force: true });
for (const name of readdirSync(join(root, "docs")).sort()) {
  if (name.endsWith(".md")) pageOf(`docs/${name}`);
}
for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) put(path);
console.log(`${pages.size} pages, ${diagrams} diagrams`);

const { name, version, exports } = JSON.parse(readFileSync(join(root, "deno.json"), "utf8"));
deno([
  "doc",
  "--html",
  `--name=${name}`,
  `--output=${join(source, "public/reference")}`,
  ...Object.values<string>(exports),
], root);

// Under their own names here, Deno would take them for those of these files.
cpSync(join(here, "packages.json"), join(work, "deno.json"));
cpSync(join(here, "packages.lock"), join(work, "deno.lock"));
mkdirSync(join(source, ".vitepress"), { recursive: true });
cpSync(join(here, "vitepress.mjs"), join(source, ".vitepress/config.mjs"));
writeFileSync(
  join(source, ".vitepress/map.json"),
  JSON.stringify({ name, version, sidebar: sidebar(readFileSync(join(root, "docs/README.md"), "utf8")) }),
);
deno(["install", "--frozen"], work);
deno(["run", "--allow-all", "npm:vitepress", "build", "src", "--outDir", html], work);

// `deno doc` links to pages of its own that it does not write: for a name with a dot, for a type's parameter.
const dead = deadLinksIn(html, existsSync).filter((each) => !each.startsWith("reference/"));
if (dead.length > 0) {
  console.error(`dead links:\n  ${dead.join("\n  ")}`);
  process.exit(1);
}
console.log(`${html}`);
