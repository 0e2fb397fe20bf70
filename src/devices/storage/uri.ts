/**
 * Storage by a short text, as the command line takes it.
 *
 * @module
 */

import { type FileOptions, FileStorage } from "./file_storage.ts";
import { MemoryStorage } from "./memory_storage.ts";
import { NullStorage } from "./null_storage.ts";
import { SECTOR, type Storage } from "./storage.ts";

const UNITS: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/**
 * A number of bytes such as `4096`, `64K`, `512M`, `1.5G` or `2T`.
 *
 * @throws {TypeError}
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?$/i.exec(text.trim());
  const size = match === null ? NaN : Number(match[1]) * UNITS[match[2].toUpperCase()];
  if (!Number.isSafeInteger(size) || size <= 0 || size % SECTOR !== 0) {
    throw new TypeError(
      `size must be a number with K, M, G or T behind it, and a multiple of ${SECTOR} bytes; got ${
        JSON.stringify(text)
      }`,
    );
  }
  return size;
}

/**
 * Opens `file:PATH`, `mem:SIZE` or `null:SIZE`.
 *
 * @param options for a file
 * @throws {TypeError} for anything else
 * @throws {OsError} when a file cannot be opened
 */
export function openStorage(uri: string, options: FileOptions = {}): Storage {
  const at = uri.indexOf(":");
  const rest = uri.slice(at + 1);
  switch (uri.slice(0, at)) {
    case "file":
      return new FileStorage(rest, options);
    case "mem":
      return new MemoryStorage(parseSize(rest));
    case "null":
      return new NullStorage(parseSize(rest));
    default:
      throw new TypeError(`storage must be file:PATH, mem:SIZE or null:SIZE, got ${JSON.stringify(uri)}`);
  }
}
