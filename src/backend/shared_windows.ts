/**
 * Files that a device shows to its guest in shared memory regions (vhost-user, SHMEM_MAP and SHMEM_UNMAP; virtio 1.4,
 * section 2.10).
 *
 * @module
 */

import { FieldError } from "../protocol/error.ts";
import type { ShmemMapping } from "../protocol/payloads.ts";
import type { BackChannel } from "./back_channel.ts";

const PAGE = 4096n;

function sameRange(a: ShmemMapping, b: ShmemMapping): boolean {
  return a.shmid === b.shmid && a.shmOffset === b.shmOffset && a.length === b.length;
}

/** The mappings of one session. */
export class SharedWindows {
  readonly #sizes: ReadonlyMap<number, number>;
  readonly #channel: Pick<BackChannel, "request">;
  #mapped: ShmemMapping[] = [];

  /** Regions by id with their bytes, nothing mapped. */
  constructor(sizes: ReadonlyMap<number, number>, channel: Pick<BackChannel, "request">) {
    this.#sizes = sizes;
    this.#channel = channel;
  }

  /**
   * Shows a part of a file. Resolves when the guest may touch it.
   *
   * @param fd the front-end gets a copy
   * @throws {FieldError} for a range that is not free, not in the region or not of whole pages
   * @throws {ProtocolError} when the front-end refuses; it may for want of resources
   */
  async map(mapping: ShmemMapping, fd: number): Promise<void> {
    const { shmid, shmOffset, length, fdOffset } = mapping;
    const size = BigInt(this.#sizes.get(shmid) ?? 0);
    if (length <= 0n || [shmOffset, length, fdOffset].some((each) => each < 0n || each % PAGE !== 0n)) {
      throw new FieldError("mapping", "whole pages of 4096 bytes", `${shmOffset}+${length} from ${fdOffset}`);
    }
    if (shmOffset + length > size) {
      throw new FieldError(
        "mapping",
        `within the ${size} bytes of region ${shmid}`,
        `${shmOffset}+${length}`,
      );
    }
    const taken = this.#mapped.find((each) =>
      each.shmid === shmid && each.shmOffset < shmOffset + length && shmOffset < each.shmOffset + each.length
    );
    if (taken !== undefined) {
      throw new FieldError(
        "mapping",
        "a free range",
        `${shmOffset}+${length}, of which ${taken.shmOffset}+${taken.length} is mapped`,
      );
    }
    this.#mapped.push(mapping);
    try {
      await this.#channel.request("SHMEM_MAP", mapping, [fd]);
    } catch (error) {
      this.#mapped = this.#mapped.filter((each) => each !== mapping);
      throw error;
    }
  }

  /**
   * Takes one earlier mapping away, whole.
   *
   * @throws {FieldError} when there is none of exactly this range
   * @throws {ProtocolError} when the front-end refuses
   */
  async unmap(mapping: ShmemMapping): Promise<void> {
    const found = this.#mapped.find((each) => sameRange(each, mapping));
    if (found === undefined) {
      throw new FieldError("mapping", "exactly an earlier one", `${mapping.shmOffset}+${mapping.length}`);
    }
    await this.#channel.request("SHMEM_UNMAP", { ...found, flags: 0n });
    this.#mapped = this.#mapped.filter((each) => each !== found);
  }

  /** Whether nothing is mapped. */
  get empty(): boolean {
    return this.#mapped.length === 0;
  }

  /** The device was reset: all mappings are gone. */
  forget(): void {
    this.#mapped = [];
  }
}
