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

/**
 * Entries for which there is room at least. QEMU 10.0 asks for the `queue-size` of its device (128 for blk), and then starts
 * rings of the 1024 entries that the driver has chosen.
 */
const LEAST_ENTRIES = 1024;

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
  if (request.queueSize > MAX_RING_SIZE) {
    throw new FieldError("queue size", `at most ${MAX_RING_SIZE}`, request.queueSize);
  }
  const size = inflightRegionSize(packed, Math.max(request.queueSize, LEAST_ENTRIES)) * request.numQueues;
  const fd = memoryFile("vhost-user-inflight", size);
  addSeals(fd, Seal.SHRINK | Seal.GROW);
  return { reply: { ...request, mmapSize: BigInt(size), mmapOffset: 0n }, fd };
}

/** The buffer that the front-end gave, mapped. */
export class InflightBuffer {
  readonly #mapping: Mapping;
  readonly #start: number;
  readonly #stride: number;
  readonly #numQueues: number;
  readonly #packed: boolean;

  /**
   * SET_INFLIGHT_FD.
   *
   * @param fd stays the caller's
   * @param most bytes
   * @param onLost called when the front-end makes the file too short
   * @throws {FieldError} when it is too small, or exceeds its file
   */
  constructor(inflight: Inflight, packed: boolean, fd: number, most: number, onLost: () => void) {
    const { mmapSize, mmapOffset, numQueues, queueSize } = inflight;
    const needed = BigInt(inflightRegionSize(packed, queueSize) * numQueues);
    if (mmapSize < needed) {
      throw new FieldError("mmap size", `at least ${needed} bytes for ${numQueues} queues`, mmapSize);
    }
    // Whoever made the buffer has shared it out evenly.
    this.#stride = Number(mmapSize / BigInt(numQueues) / 64n) * 64;
    this.#packed = packed;
    if (mmapOffset % 8n !== 0n) throw new FieldError("mmap offset", "a multiple of 8", mmapOffset);
    const { mapping, start } = mapRange(fd, mmapOffset, mmapSize, most, "inflight", onLost);
    this.#mapping = mapping;
    this.#start = start;
    this.#numQueues = numQueues;
  }

  /**
   * The part of one ring; `undefined` for a ring that the buffer has no room for, which then is not recorded.
   */
  region(index: number, size: number): InflightRegion | undefined {
    if (index >= this.#numQueues || inflightRegionSize(this.#packed, size) > this.#stride) return undefined;
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
