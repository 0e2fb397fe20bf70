/**
 * `--limit`: how much a front-end may use.
 *
 * @module
 */

import { defaultLimits, type Limits, limitsOf } from "../../mod.ts";
import { type Option, UsageError } from "./command.ts";

const UNITS = ["", "K", "M", "G", "T"];

/** A number by its largest unit of which it is a multiple. */
function inShort(value: number): string {
  let power = 0;
  let left = value;
  for (; left >= 1024 && left % 1024 === 0 && power < UNITS.length - 1; power++) left /= 1024;
  return `${left}${UNITS[power]}`;
}

const defaults = Object.entries(defaultLimits).map(([name, value]) => `${name}=${inShort(value)}`);
const half = Math.ceil(defaults.length / 2);

/** The option. */
export const limitOption: Option = {
  value: "NAME=N",
  multiple: true,
  help:
    "How much a front-end may use; N may end in K, M, G or T, powers of 1024. May be given several times.\n" +
    `Default: ${defaults.slice(0, half).join(" ")}\n${defaults.slice(half).join(" ")}.`,
};

/**
 * The option's values as limits.
 *
 * @throws {UsageError}
 */
export function limitsFrom(given: readonly string[]): Partial<Limits> {
  const limits = Object.fromEntries(given.map((text) => {
    const parts = /^(\w+)=(\d+)([KMGT]?)$/.exec(text);
    if (parts === null) throw new UsageError(`--limit must be NAME=N, such as memory=4G, got '${text}'`);
    const [, name, number, unit] = parts;
    return [name, Number(number) * 1024 ** UNITS.indexOf(unit)];
  }));
  try {
    limitsOf(limits);
  } catch (error) {
    throw new UsageError(`--limit: ${(error as Error).message}`);
  }
  return limits;
}
