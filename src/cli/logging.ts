/**
 * What the commands that serve a device write about what happens.
 *
 * @module
 */

import {
  type Log,
  type LogAbout,
  type LogLevel,
  logLevels,
  logRecord,
  recordJson,
  recordText,
} from "../../mod.ts";
import { type Options, type Output, UsageError, type Values } from "./command.ts";

const FORMATS = { text: recordText, json: recordJson } as const;

/** Options for that. */
export const loggingOptions: Options = {
  "log-level": {
    value: "LEVEL",
    choices: logLevels,
    help: "Print what is at least this serious: debug, info, warning (default) or error.",
  },
  "log-format": {
    value: "FORMAT",
    choices: Object.keys(FORMATS),
    help: "How: text (default), or json for a record a line.",
  },
  "verbose": { help: "The same as --log-level=info: print when front-ends come and go." },
  "trace": { help: "Print every message of the control socket." },
};

/** What {@link loggingOptions} ask for. */
export interface CommandLog {
  /** Takes entries, and prints those that are serious enough. */
  readonly log: Log;
  /** Prints a message of the control socket. */
  trace(text: string, about: LogAbout): void;
}

/** Reads {@link loggingOptions}. */
export function commandLog(values: Values, output: Output): CommandLog {
  const { "log-level": level, "log-format": format = "text", verbose = false } = values;
  if (level !== undefined && verbose === true) throw new UsageError("give either --log-level or --verbose");
  const least = (level ?? (verbose ? "info" : "warning")) as LogLevel;
  const write = FORMATS[format as keyof typeof FORMATS];
  const from = logLevels.indexOf(least);
  return {
    log: (level, text, error, about) => {
      if (logLevels.indexOf(level) >= from) output.error(write(logRecord(level, text, error, about)));
    },
    trace: (text, about) =>
      output.error(format === "text" ? text : recordJson(logRecord("debug", text, undefined, about))),
  };
}
