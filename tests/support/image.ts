import { createHash } from "node:crypto";
import { readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Scope, tempDir } from "./cleanup.ts";

/** 2^20 bytes. */
export const MIB: number = 1024 * 1024;

/** Makes an image that reads as zeros, and returns its path. */
export function newImage(scope: Scope, size: number): string {
  const file = join(tempDir(scope), "disk.img");
  writeFileSync(file, "");
  truncateSync(file, size);
  return file;
}

/** Makes an image with contents, and returns its path. */
export function imageOf(scope: Scope, contents: Uint8Array): string {
  const file = join(tempDir(scope), "disk.img");
  writeFileSync(file, contents);
  return file;
}

/** The checksum of bytes, or of a file's, as `sha256sum` prints it. */
export function sha256(source: string | Uint8Array): string {
  const bytes = typeof source === "string" ? readFileSync(source) : source;
  return createHash("sha256").update(bytes).digest("hex");
}

/** How much room a file takes, in bytes: less than its size when there are holes. */
export function allocated(file: string): number {
  return statSync(file).blocks * 512;
}
