/**
 * The files of xterm.js, as Deno imports them: without leave to read, and from wherever its packages are.
 *
 * @module
 */

import fitText from "@xterm/addon-fit/lib/addon-fit.js" with { type: "text" };
import styleText from "@xterm/xterm/css/xterm.css" with { type: "text" };
import xtermText from "@xterm/xterm/lib/xterm.js" with { type: "text" };

/** The terminal. */
export const xterm: string = xtermText;

/** Its add-on that fits it to the window. */
export const fit: string = fitText;

/** Its style sheet. */
export const style: string = styleText;
