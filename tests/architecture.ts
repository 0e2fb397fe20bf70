import { posix } from "node:path";

/** Paths from the root of the project, and what is in them. */
export type Sources = ReadonlyMap<string, string>;

/** Which folders the files of a folder may import; always its own. DESIGN: an arrow means "imports". */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  "ffi": [],
  "src/protocol": [],
  "src/transport": ["src/protocol", "ffi"],
  "src/memory": ["ffi"],
  "src/virtqueue": ["src/memory", "src/protocol", "ffi"],
  "src/backend": ["src/virtqueue", "src/memory", "src/transport", "src/protocol", "ffi"],
  "src/frontend": ["src/virtqueue", "src/transport", "src/protocol", "ffi"],
  "src/testing": ["src/backend", "src/frontend", "src/protocol", "ffi"],
  "src/metrics": ["src/backend", "ffi"],
  "src/devices": ["src/backend", "src/virtqueue", "src/memory", "src/protocol", "ffi"],
  // Knows devices by what they say of themselves.
  "src/faults": ["src/backend", "src/virtqueue", "src/memory", "src/protocol", "ffi"],
  "src/tools": [
    "src/devices",
    "src/frontend",
    "src/backend",
    "src/virtqueue",
    "src/memory",
    "src/transport",
    "src/protocol",
    "ffi",
  ],
  // The command line is a user of the public surface, as others are.
  "src/cli": [
    "mod.ts",
    "src/metrics",
    "src/tools",
    "src/faults",
    "src/devices",
    "src/frontend",
    "src/backend",
    "src/virtqueue",
    "src/memory",
    "src/transport",
    "src/protocol",
    "ffi",
  ],
  "mod.ts": [
    "src/devices",
    "src/frontend",
    "src/backend",
    "src/virtqueue",
    "src/memory",
    "src/transport",
    "src/protocol",
    "ffi",
  ],
};

/** Modules of the runtime that a folder, or a file, may use. The command line is a program, and so are the tools. */
const RUNTIME: Readonly<Record<string, RegExp>> = {
  "ffi": /^node:timers$/,
  "ffi/node.ts": /^(koffi|node:(process|worker_threads))$/,
  // User-mode networking goes on by the runtime's own sockets.
  "src/devices": /^node:(dns\/promises|net)$/,
  "src/tools": /^node:(child_process|os|process|timers)$/,
  "src/cli": /^(node:|ws$|@xterm\/)/,
};

/** The one file that may name the global of the runtime. */
const RUNTIME_FILE = "ffi/deno.ts";
/**
 * What stands in the place of the `deno.ts` beside it under Node. Nothing imports it, so that Deno knows nothing of what it
 * needs.
 */
const NODE_FILE = /(^|\/)node\.ts$/;

/** A source without its comments; what looks like one in a string stays. */
export function withoutComments(source: string): string {
  const token = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|\/\/[^\n]*|\/\*[^]*?\*\//g;
  return source.replace(token, (found) => found.startsWith("/") ? " " : found);
}

/** What a source imports, exports from elsewhere or starts, as written. */
export function importsOf(source: string): string[] {
  const code = withoutComments(source);
  const forms = [
    /\bfrom\s*"([^"]+)"/g,
    /\bimport\s*"([^"]+)"/g,
    /\bimport\s*\(\s*"([^"]+)"/g,
    /\bnew\s+URL\(\s*"([^"]+)"\s*,\s*import\.meta\.url\s*\)/g,
  ];
  return forms.flatMap((form) => [...code.matchAll(form)].map(([, specifier]) => specifier));
}

/** `src/memory` for `src/memory/region.ts`, `ffi` for `ffi/fd.ts`, and a file of the root itself. */
function folderOf(path: string): string {
  const [first, second] = path.split("/");
  return first === "src" ? `${first}/${second}` : first;
}

function resolve(from: string, specifier: string): string {
  return posix.join(posix.dirname(from), specifier);
}

/** Files that import each other in a circle, each circle once, as `a → b → a`. */
function circles(sources: Sources): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): void => {
    const at = path.indexOf(file);
    if (at >= 0) {
      found.push([...path.slice(at), file].join(" → "));
      return;
    }
    const source = sources.get(file);
    if (done.has(file) || source === undefined) return;
    path.push(file);
    for (const specifier of importsOf(source)) {
      if (specifier.startsWith(".")) visit(resolve(file, specifier));
    }
    path.pop();
    done.add(file);
  };
  for (const file of sources.keys()) visit(file);
  return found;
}

/** Every offence against the order of layers, in words. */
export function offences(sources: Sources): string[] {
  const found: string[] = [];
  for (const [file, source] of sources) {
    const folder = folderOf(file);
    const allowed = ALLOWED[folder];
    if (allowed === undefined) {
      found.push(`${file}: no layer has this folder`);
      continue;
    }
    if (file !== RUNTIME_FILE && /\bDeno\s*(\?\.|\.|\[)/.test(withoutComments(source))) {
      found.push(`${file}: names Deno, which only ${RUNTIME_FILE} may`);
    }
    for (const specifier of importsOf(source)) {
      if (!specifier.startsWith(".")) {
        if (!(RUNTIME[file] ?? RUNTIME[folder])?.test(specifier)) found.push(`${file} → ${specifier}`);
        continue;
      }
      const target = resolve(file, specifier);
      if (NODE_FILE.test(target)) {
        found.push(
          `${file} → ${target}, which only takes the place of ${target.replace(NODE_FILE, "$1deno.ts")}`,
        );
      }
      const other = folderOf(target);
      if (other !== folder && !allowed.includes(other)) found.push(`${file} → ${target}`);
    }
  }
  return [...found, ...circles(sources)];
}
