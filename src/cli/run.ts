/**
 * `vhost-user run`.
 *
 * @module
 */

import { pathToFileURL } from "node:url";
import { loadDefault } from "../backend/threads/make_device.ts";
import { type Command, type Output, UsageError, type Values, wholeNumber } from "./command.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";

/** `NAME=VALUE` several times: a value is JSON where it can be read as that, and text otherwise. */
export function deviceOptions(given: readonly string[]): Record<string, unknown> {
  const options: Record<string, unknown> = Object.create(null);
  for (const text of given) {
    const at = text.indexOf("=");
    if (at < 1) throw new UsageError(`--option must be NAME=VALUE, got '${text}'`);
    const name = text.slice(0, at);
    if (name in options) throw new UsageError(`--option: ${name} is given twice`);
    options[name] = valueOf(text.slice(at + 1));
  }
  return { ...options };
}

function valueOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A path, or the URL of a module. */
function moduleUrl(text: string): URL {
  // A letter alone is no scheme that a module could have.
  return /^[a-z][a-z\d+.-]+:/i.test(text) ? new URL(text) : pathToFileURL(text);
}

async function serveModule(
  module: URL,
  values: Values,
  output: Output,
  signal: AbortSignal | undefined,
): Promise<void> {
  const options = {
    ...serveOptions(values, output),
    deviceOptions: deviceOptions((values.option ?? []) as readonly string[]),
    signal,
  };
  // Nobody knows what the module needs.
  const needs = { programs: true };
  await serveUntilSignal(module, options, `vhost-user run: ${values.MODULE}`, output, () => {}, needs);
}

/** Serves the device of a module. */
export const run: Command = {
  summary:
    "Serves the device that a module of yours exports. With --watch it is served anew when that changes.",
  argument: {
    name: "MODULE",
    offer: "file",
    help: "Path or URL of the module. Its default export is a device, or a function that makes one,\n" +
      "also asynchronously, from an object of options. Deno must be allowed to read it.",
  },
  options: {
    "option": {
      value: "NAME=VALUE",
      multiple: true,
      help: "An option for the module's function; may be given several times. A VALUE that is JSON is\n" +
        "taken as such (8, true, [1,2], null), anything else as text.",
    },
    "watch": {
      help: "Serve the module anew when it, or a module of yours that it imports, has changed.\n" +
        "Needs Deno's --allow-read, --allow-run and --allow-env.",
    },
    "standby": {
      value: "FDNUM",
      hidden: true,
      help: "For --watch, which starts this command so: load the module, say so on this socket, serve\n" +
        "when there is an answer, and say so again.",
    },
    ...servingOptions,
  },
  examples: [
    ["vhost-user run ./rng.ts --socket-path=/tmp/rng.sock", "Serves the device that rng.ts exports."],
    [
      "vhost-user run ./disk.ts --socket-path=/tmp/disk.sock --watch --option size=64 --option name=scratch",
      'Calls the function that disk.ts exports with { size: 64, name: "scratch" }, and again when\n' +
      "disk.ts is saved. QEMU comes back by itself with reconnect-ms=100.",
    ],
  ],
  run: async (values, output) => {
    const module = moduleUrl(String(values.MODULE));
    if (values.watch === true) {
      // What is wrong with the command line is said once, and not by each version.
      serveOptions(values, output);
      deviceOptions((values.option ?? []) as readonly string[]);
      if (values.standby !== undefined) throw new UsageError("--standby is for what --watch starts");
      const { watch } = await import("./watch/watch.ts");
      return await watch(module, values, run.options, output);
    }
    if (values.standby === undefined) {
      await serveModule(module, values, output, undefined);
      return 0;
    }
    const { Tether } = await import("./watch/tether.ts");
    const tether = new Tether(wholeNumber("standby", String(values.standby), 3, 1 << 20));
    await loadDefault(module.href);
    tether.ring();
    if (await tether.next() === "rung") {
      // The first line says that it serves; the process that watches knows where.
      let serves = false;
      const out = (line: string): void => {
        if (serves) output.out(line);
        else tether.ring();
        serves = true;
      };
      await serveModule(module, values, { ...output, out }, tether.gone());
    }
    tether.close();
    return 0;
  },
};
