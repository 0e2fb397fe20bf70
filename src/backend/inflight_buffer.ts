/**
 * The buffer in which a session records requests in flight (vhost-user, "Inflight I/O tracking").
 *
 * @module
 */

import { addSeals, Seal } from "../../ffi/fd.ts";
import { type Mapping, memoryFile } from "../../ffi/mapping.ts";
import { FieldError } from "../protocol/error.ts";
import type { Inflight } from "../protocol/payloads.ts";
import { type InflightRegion, inflightRegionSize } from "../virtqueue/inflight.ts";
import { MAX_RING_SIZE } from "../virtqueue/split_layout.ts";
import { mapRange } from "./migration_log.ts";

function regionSize(packed: boolean, { queueSize }: Inflight): number {
  if (queueSize > MAX_RING_SIZE) throw new FieldError("queue size", `at most ${MAX_RING_SIZE}`, queueSize);
  return inflightRegionSize(packed, queueSize);
}

/**
 * A new buffer for GET_INFLIGHT_FD, zeroed.
 *
 * @returns what to answer, and the file; the caller owns it
 * @throws {FieldError} for more queues or entries than there can be
 */
export function newInflightBuffer(
  request: Inflight,
  packed: boolean,
  queues: number,
): { reply: Inflight; fd: number } {
  if (request.numQueues > queues) {
    throw new FieldError("number of queues", `at most ${queues}`, request.numQueues);
  }
  const size = regionSize(packed, request) * request.numQueues;
  const fd = memoryFile("vhost-user-inflight", size);
  addSeals(fd, Seal.SHRINK | Seal.GROW);
  return { reply: { ...request, mmapSize: BigInt(size), mmapOffset: 0n }, fd };
}

/** The buffer that the front-end gave, mapped. */
export class InflightBuffer {
  readonly #mapping: Mapping;
  readonly #start: number;
  readonly #stride: number;
  readonly #inflight: Inflight;

  /**
   * SET_INFLIGHT_FD.
   *
   * @param fd stays the caller's
   * @throws {FieldError} when it is too small, or exceeds its file
   */
  constructor(inflight: Inflight, packed: boolean, fd: number) {
    const { mmapSize, mmapOffset, numQueues } = inflight;
    this.#stride = regionSize(packed, inflight);
    const needed = BigInt(this.#stride) * BigInt(numQueues);
    if (mmapSize < needed) {
      throw new FieldError("mmap size", `at least ${needed} bytes for ${numQueues} queues`, mmapSize);
    }
    if (mmapOffset % 8n !== 0n) throw new FieldError("mmap offset", "a multiple of 8", mmapOffset);
    const { mapping, start } = mapRange(fd, mmapOffset, needed, Number(needed));
    this.#mapping = mapping;
    this.#start = start;
    this.#inflight = inflight;
  }

  /**
   * The part of one ring; `undefined` for a ring that the buffer has no room for.
   *
   * @throws {FieldError} when the ring has more entries than the buffer was made for
   */
  region(index: number, size: number): InflightRegion | undefined {
    const { numQueues, queueSize } = this.#inflight;
    if (index >= numQueues) return undefined;
    if (size > queueSize) {
      throw new FieldError("in-flight buffer", `for rings of at least ${size} entries`, queueSize);
    }
    return {
      buffer: this.#mapping.buffer,
      byteOffset: this.#start + index * this.#stride,
      byteLength: this.#stride,
    };
  }

  /** Unmaps. */
  close(): void {
    this.#mapping.unmap();
  }
}
