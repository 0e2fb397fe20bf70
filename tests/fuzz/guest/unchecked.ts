/**
 * Tells errors that a check has made from those that nobody has thought of.
 *
 * @module
 */

import { errorText } from "../../../mod.ts";

/** What the engine says when something was used that nobody had checked. */
const ENGINE =
  /TypeError|ReferenceError|SyntaxError|AssertionError|out of bounds|outside the bounds|Invalid (array|typed|DataView|count|code)|call stack|converted to a BigInt/;

/** Whether an error, as text, comes from the engine and not from a check. */
export function isUnchecked(text: string): boolean {
  return ENGINE.test(text);
}

/** For devices that tell of errors: what no check has made ends the process. */
export function told(error: unknown): void {
  if (!(error instanceof Error) || !isUnchecked(`${error.name}: ${errorText(error)}`)) return;
  queueMicrotask(() => {
    throw error;
  });
}
