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
import { type Option, type Output, UsageError, type Values } from "./command.ts";

/** Options for that. */
export const loggingOptions: Readonly<Record<string, Option>> = {
  "log-level": {
    value: "LEVEL",
    help: "Print what is at least this serious: debug, info, warning (default) or error.",
  },
  "log-format": { value: "FORMAT", help: "How: text (default), or json for a record a line." },
  "verbose": { help: "The same as --log-level=info: print when front-ends come and go." },
  "trace": { help: "Print every message of the control socket." },
};

const FORMATS = { text: recordText, json: recordJson } as const;

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
  const least = String(level ?? (verbose ? "info" : "warning")) as LogLevel;
  if (!logLevels.includes(least)) {
    throw new UsageError(`--log-level must be ${logLevels.join(", ")}, got '${least}'`);
  }
  if (!Object.hasOwn(FORMATS, String(format))) {
    throw new UsageError(`--log-format must be text or json, got '${format}'`);
  }
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
