/**
 * The dirty log of a session (vhost-user, "Migration").
 *
 * @module
 */

import { signal } from "../../ffi/eventfd.ts";
import { close, duplicate, fileStatus, setNonblocking } from "../../ffi/fd.ts";
import { Mapping } from "../../ffi/mapping.ts";
import { DirtyLog } from "../memory/dirty_log.ts";
import { FieldError } from "../protocol/error.ts";
import type { LimitName } from "./limits.ts";

/**
 * Maps part of a file of the front-end, from any offset.
 *
 * @param most bytes, by the limit of this name
 * @param onLost called when the file has become too short for an access
 */
export function mapRange(
  fd: number,
  offset: bigint,
  size: bigint,
  most: number,
  limit: LimitName,
  onLost: () => void,
): { mapping: Mapping; start: number } {
  if (size <= 0n || size > BigInt(most)) {
    throw new FieldError("size", `1 to ${most} bytes (limit ${limit})`, size);
  }
  const status = fileStatus(fd);
  if (offset + size > BigInt(status.size)) {
    throw new FieldError("range", `within the file's ${status.size} bytes`, `${offset}+${size}`);
  }
  const page = Math.max(4096, status.blockSize);
  const start = Number(offset) % page;
  const length = Math.ceil((start + Number(size)) / page) * page;
  const mapping = new Mapping(fd, length, Number(offset) - start);
  try {
    mapping.watch(onLost);
  } catch (error) {
    mapping.unmap();
    throw error;
  }
  return { mapping, start };
}

/** The shared log and the event that tells of it. */
export class MigrationLog {
  /** The log, once the front-end has given one. */
  log: DirtyLog | undefined;
  #mapping: Mapping | undefined;
  #event = -1;

  /**
   * SET_LOG_BASE: maps a log in place of an earlier one.
   *
   * @param fd stays the caller's
   * @param most bytes
   * @param onLost called when the front-end makes the file too short
   */
  open(fd: number, offset: bigint, size: bigint, most: number, onLost: () => void): void {
    const { mapping, start } = mapRange(fd, offset, size, most, "log", onLost);
    this.#mapping?.unmap();
    this.#mapping = mapping;
    this.log = new DirtyLog(new Uint8Array(mapping.buffer, start, Number(size)));
  }

  /**
   * SET_LOG_FD: an event to ring after marking.
   *
   * @param fd stays the caller's
   */
  setEvent(fd: number): void {
    if (this.#event >= 0) close(this.#event);
    this.#event = -1;
    setNonblocking(fd);
    this.#event = duplicate(fd);
  }

  /** Rings, if there were marks since the last time. */
  tell(): void {
    if (this.#event < 0 || this.log === undefined || !this.log.dirty) return;
    this.log.dirty = false;
    signal(this.#event);
  }

  /** Unmaps and closes. */
  close(): void {
    this.#mapping?.unmap();
    this.#mapping = this.log = undefined;
    if (this.#event >= 0) close(this.#event);
    this.#event = -1;
  }
}
