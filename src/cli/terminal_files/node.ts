/**
 * The files of xterm.js, as Node finds them: it cannot import text.
 *
 * @module
 */

import { readFileSync } from "node:fs";

// Called as a method of `import.meta`, dnt up to 0.40 makes something else of it.
const { resolve } = import.meta;

function read(url: string): string {
  return readFileSync(new URL(url), "utf8");
}

/** The terminal. */
export const xterm: string = read(resolve("@xterm/xterm/lib/xterm.js"));

/** Its add-on that fits it to the window. */
export const fit: string = read(resolve("@xterm/addon-fit/lib/addon-fit.js"));

/** Its style sheet. */
export const style: string = read(resolve("@xterm/xterm/css/xterm.css"));
