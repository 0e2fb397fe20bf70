/**
 * Whether to print in colours.
 *
 * @module
 */

import process from "node:process";
import { styleText } from "node:util";
import { type Paint, plain } from "../tools/paint.ts";

/** What the decision rests on. */
export interface Terminal {
  /** Whether it goes to a terminal. */
  readonly isTTY?: boolean;
}

/** The variables. Deno lets any program read these two. */
export interface ColourVariables {
  /** No colours, if it has any value but the empty one (https://no-color.org). */
  readonly NO_COLOR?: string;
  /** Colours also where there is no terminal; with `0` or `false` none. It has the last word, as in Node. */
  readonly FORCE_COLOR?: string;
}

/** Whether what goes to a stream is to be coloured. */
export function wantsColour(
  { isTTY = false }: Terminal,
  { NO_COLOR = "", FORCE_COLOR }: ColourVariables = process.env,
): boolean {
  if (FORCE_COLOR !== undefined) return FORCE_COLOR !== "0" && FORCE_COLOR !== "false";
  return isTTY && NO_COLOR === "";
}

/** Colours for a stream, where they are wanted. */
export function painter(stream: Terminal): Paint {
  if (!wantsColour(stream)) return plain;
  return (style, text) => styleText(style, text, { validateStream: false });
}
