/**
 * What a server has to say.
 *
 * @module
 */

/** How serious an entry is. */
export type LogLevel = "debug" | "info" | "warning" | "error";

/** Takes a log entry: one line of text, with the error that is behind it when there is one. */
export type Log = (level: LogLevel, text: string, error?: unknown) => void;

/** The text of anything thrown. */
export function errorText(error: unknown): string {
  return error instanceof Error
    ? `${error.name === "Error" ? "" : `${error.name}: `}${error.message}`
    : String(error);
}

/** Warnings and errors on the standard error output. */
export const logToStderr: Log = (level, text, error) => {
  if (level !== "warning" && level !== "error") return;
  // deno-lint-ignore no-console
  console.error(`vhost-user: ${level}: ${text}${error === undefined ? "" : `: ${errorText(error)}`}`);
};
