/**
 * Devices, and what they consist of, by the module that makes them. Modules are imported by their absolute URLs: here, and
 * nowhere else, what is imported is known only when it is.
 *
 * @module
 */

import type { Device } from "../device.ts";
import { errorText } from "../log.ts";
import type { DeviceSource } from "./messages.ts";

// deno-lint-ignore no-control-regex
const COLOUR = /\x1b\[[\d;]*m/g;

/** What an import has failed for, in a line: without the part of the source that a parser shows, but with its place. */
function reason(error: unknown): string {
  const [first, ...rest] = errorText(error).replace(COLOUR, "").split("\n");
  // That a module was not found is what Deno says of everything that goes wrong before modules run.
  const text = first.replace(/^TypeError: /, "");
  const place = rest.map((line) => /^\s+at (\S+:\d+:\d+)$/.exec(line)?.[1]).find((at) => at !== undefined) ??
    // Node says it before everything else.
    /^(\S+:\d+)\n/.exec((error as Error | undefined)?.stack ?? "")?.[1];
  return place === undefined ? text : `${text} at ${place}`;
}

/**
 * The default export of a module: what makes a device or its storage, or a device itself.
 *
 * @throws {Error} when it is not there, may not be read, cannot be parsed, or throws
 */
export async function loadDefault(module: string): Promise<unknown> {
  try {
    return ((await import(module)) as { default?: unknown }).default;
  } catch (error) {
    throw new Error(`cannot load ${module}: ${reason(error)}`, { cause: error });
  }
}

/**
 * Loads a module and makes its device.
 *
 * @throws {TypeError} when its default export is neither a device nor a function that makes one, or is a device although
 * there are options
 * @throws {Error} when it cannot be loaded, or its function throws
 */
export async function makeDevice({ module, options }: DeviceSource): Promise<Device> {
  const exported = await loadDefault(module);
  const device = typeof exported === "function" ? await call(exported, module, options) : exported;
  // Not by its class: the module may have got that from another copy of this package.
  if (typeof (device as Device | undefined)?.connect !== "function") {
    throw new TypeError(
      `${module}: the default export must be a device, or a function that makes one; got ${
        exported === undefined
          ? "none"
          : typeof exported === "function"
          ? `a function that makes ${kind(device)}`
          : kind(device)
      }`,
    );
  }
  if (device === exported && Object.keys(options ?? {}).length > 0) {
    throw new TypeError(`${module}: the default export is a device and takes no options; a function could`);
  }
  return device as Device;
}

function kind(value: unknown): string {
  return value === null ? "null" : typeof value;
}

// deno-lint-ignore ban-types
async function call(make: Function, module: string, options: unknown): Promise<unknown> {
  try {
    return await make(options);
  } catch (error) {
    throw new Error(`${module}: the function that makes the device has failed: ${reason(error)}`, {
      cause: error,
    });
  }
}
