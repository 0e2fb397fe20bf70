/**
 * Colours of lines for people.
 *
 * @module
 */

/** How a text may stand out. The names are those of `styleText` in `node:util`. */
export type Style = "bold" | "dim" | "red" | "green" | "yellow" | "gray";

/** Makes a text stand out, or not where that is not wanted. */
export type Paint = (style: Style, text: string) => string;

/** Leaves texts as they are. */
export const plain: Paint = (_, text) => text;
