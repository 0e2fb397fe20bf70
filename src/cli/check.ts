/**
 * `vhost-user check`.
 *
 * @module
 */

import { closeSync, openSync, writeSync } from "node:fs";
import { constants } from "node:os";
import process from "node:process";
import { describeMessage } from "../tools/describe.ts";
import {
  check as runCheck,
  type CheckOptions,
  countVerdicts,
  type DeviceKind,
  deviceKinds,
  jsonReport,
  junitReport,
  RunningTarget,
  selectCases,
  SpawnedTarget,
  type Target,
  TextReport,
} from "../tools/check/mod.ts";
import { type Command, type Output, UsageError, type Values, wholeNumber } from "./command.ts";
import { painter } from "./colour.ts";
import { leave } from "./leave.ts";
import { version } from "./version.ts";

/** How many times as long as for an answer a case may take. */
const CASE = 10;
/** How long to wait for an answer, seconds. */
const TIMEOUT = 2;

/** The options of a run, and the cases that they mean. */
function checkOptions(values: Values): CheckOptions & { device: DeviceKind; patience: number } {
  const { device = "any", filter, write, timeout, "write-at": writeAt } = values;
  const patience = 1000 *
    (timeout === undefined ? TIMEOUT : wholeNumber("timeout", String(timeout), 1, 600));
  if (writeAt !== undefined && write !== true) throw new UsageError("--write-at goes with --write");
  const options = {
    device: device as DeviceKind,
    filter: filter === undefined ? undefined : String(filter).split(","),
    write: write === true,
    writeAt: writeAt === undefined
      ? undefined
      : wholeNumber("write-at", String(writeAt), 0, Number.MAX_SAFE_INTEGER),
    patience,
    timeout: CASE * patience,
  };
  if (selectCases(options).length === 0) {
    throw new UsageError("no case is left: see --list, and --device and --write");
  }
  return options;
}

/** Width of the column for the names of the cases. */
function nameWidth(options: CheckOptions): number {
  return Math.max(...selectCases(options).flatMap(({ cases }) => cases.map(({ id }) => id.length)));
}

/** The cases as a table for people. */
function list(options: CheckOptions): string[] {
  const width = nameWidth(options);
  return selectCases(options).flatMap(({ title, cases }) => [
    title,
    ...cases.map((each) => `  ${each.id.padEnd(width)}  ${each.title}  (${each.section})`),
    "",
  ]).slice(0, -1);
}

/** A place for the socket of a back-end that is started here. */
function freshSocket(): string {
  return `/tmp/vhost-user-check-${process.pid}.sock`;
}

/** Shows what is being tried, on a terminal. */
class Progress {
  readonly #on: boolean;

  constructor(on: boolean) {
    this.#on = on;
  }

  show(text: string): void {
    if (this.#on) process.stderr.write(`\x1b[2K\r${text.slice(0, (process.stderr.columns || 80) - 1)}`);
  }

  clear(): void {
    if (this.#on) process.stderr.write("\x1b[2K\r");
  }
}

/** Checks. Returns the exit status. */
async function runAll(values: Values, output: Output): Promise<number> {
  const { socket, spawn, json, junit, all, trace } = values;
  const options = checkOptions(values);
  if (values.list === true) {
    for (const line of list(options)) output.out(line);
    return 0;
  }
  if (socket === undefined && spawn === undefined) throw new UsageError("which socket?");
  if (spawn !== undefined && !String(spawn).includes("{socket}")) {
    throw new UsageError("--spawn must say where the socket's path belongs, by {socket}");
  }
  // What cannot be written is better known before the run than after it.
  const file = junit === undefined ? undefined : openSync(String(junit), "w", 0o644);
  const path = socket === undefined ? freshSocket() : String(socket);
  const target: Target = spawn === undefined
    ? new RunningTarget(path, options.patience)
    : new SpawnedTarget(String(spawn), path, options.patience);
  const stop = (signal: "SIGINT" | "SIGTERM"): void =>
    void target.close().then(() => leave(128 + constants.signals[signal]));
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, stop);
  const text = new TextReport(nameWidth(options), painter(process.stdout), all === true);
  const progress = new Progress(process.stderr.isTTY === true && trace !== true);
  try {
    const report = await runCheck(target, {
      ...options,
      tap: trace === true
        // The front-end is here: what it sends goes to the back-end.
        ? (direction, message) => output.error(describeMessage(direction === "in" ? "out" : "in", message))
        : undefined,
      onOffer: (offer) => {
        if (json !== true) { for (const line of text.head(offer)) output.out(line); }
      },
      onCase: (_, { id }, number, total) => {
        if (trace === true) output.error(`--- ${id}`);
        progress.show(`${number} of ${total}: ${id}`);
      },
      onResult: (group, result) => {
        progress.clear();
        if (json !== true) { for (const line of text.result(group, result)) output.out(line); }
      },
    });
    if (json === true) output.out(JSON.stringify(jsonReport(report, version), null, 2));
    else for (const line of text.summary(report)) output.out(line);
    if (file !== undefined) writeSync(file, junitReport(report));
    return countVerdicts(report).fail > 0 ? 1 : 0;
  } finally {
    progress.clear();
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, stop);
    if (file !== undefined) closeSync(file);
    await target.close();
  }
}

async function run(values: Values, output: Output): Promise<number> {
  try {
    return await runAll(values, output);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    // Not 1, which says that the back-end was checked.
    output.error(`vhost-user check: ${error instanceof Error ? error.message : error}`);
    return 2;
  }
}

/** Checks a back-end. */
export const check: Command = {
  summary: "Checks that a back-end keeps to the vhost-user and virtio specifications.",
  argument: { name: "socket", offer: "file", help: "The back-end's Unix socket.", optional: true },
  options: {
    "device": {
      value: "KIND",
      choices: deviceKinds,
      help: `What the back-end serves: ${deviceKinds.join(", ")}.\nWith any (the default) no ring is driven.`,
    },
    "spawn": {
      value: "COMMAND",
      help: "Start the back-end by this shell command, with the socket's path for {socket};\n" +
        "again when it has ended or died.",
    },
    "filter": {
      value: "LIST",
      help:
        "Try these cases only: names, beginnings of names up to a dot, * for anything,\nseparated by commas.",
    },
    "write": {
      help: "Also try what writes: to 64 KiB of the disk, which are put back, to the configuration\n" +
        "space, and to the device's state. Nobody else may use the device meanwhile.",
    },
    "write-at": { value: "BYTES", help: "Where those 64 KiB begin (default 0)." },
    "timeout": {
      value: "SECONDS",
      help: `How long to wait for an answer (default ${TIMEOUT}); a case may take ${CASE} times that.`,
    },
    "list": { help: "List the cases, and do nothing else." },
    "all": { help: "Give a line to each case that makes no sense for this back-end, too." },
    "json": { help: "Print the results as JSON." },
    "junit": { value: "FILE", offer: "file", help: "Write the results as JUnit XML, too (--allow-write)." },
    "trace": { help: "Print every message." },
  },
  examples: [
    ["vhost-user check /tmp/disk.sock --device=blk", "Checks a disk; reads only."],
    [
      "vhost-user check --device=fs --spawn='/usr/libexec/virtiofsd --socket-path={socket} --shared-dir=/tmp'",
      "Starts virtiofsd before each case, for it leaves with its front-end. Needs --allow-run and --allow-env.",
    ],
    ["vhost-user check /tmp/x.sock --filter='rings,*.SET_MEM_TABLE'", "Tries some cases."],
  ],
  permissions: [
    { flags: ["--allow-run=/bin/sh", "--allow-env"], when: "--spawn" },
    { flags: ["--allow-write=FILE"], when: "--junit=FILE" },
  ],
  exitCodes: {
    0: "No case failed.",
    1: "A case failed.",
    2: "The command line cannot be understood, or the back-end could not be checked.",
    130: "Ended by SIGINT.",
    143: "Ended by SIGTERM.",
  },
  run,
};
