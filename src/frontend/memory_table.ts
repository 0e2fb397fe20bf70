/**
 * The memory that a front-end shares: the table that its back-end has of it.
 *
 * @module
 */

import { ProtocolError } from "../protocol/error.ts";
import { frontendMessages } from "../protocol/messages.ts";
import { MAX_REGIONS, type MemoryRegion } from "../protocol/payloads.ts";
import { type FrontEndSession, LostFeaturesError } from "./session.ts";

/** A region of guest memory in a file; {@link SharedMemory} is one. */
export interface SharedRegion {
  /** The file: one that can be mapped shared, and stays the caller's. */
  readonly fd: number;
  /** Guest physical address of the first byte. */
  readonly guestAddress: number;
  /** Bytes. */
  readonly byteLength: number;
  /** Address of the first byte in this process: what ring addresses are counted by. */
  readonly userAddress: bigint;
  /** Offset of the first byte in the file; 0 when absent. */
  readonly mmapOffset?: number;
}

/** What is shared, and how a session is told. */
export class MemoryTable {
  /** By guest address: the libraries of rust-vmm refuse a table that is not sorted. */
  readonly #regions: SharedRegion[] = [];

  /** Shares a region, in addition. */
  async add(session: FrontEndSession, region: SharedRegion): Promise<void> {
    this.#insert(region);
    try {
      if (slots(session)) await session.request("ADD_MEM_REG", wire(session, region), [region.fd]);
      else await this.#sendTable(session);
    } catch (error) {
      // What the back-end has refused is not shared; what was cut off is, as soon as there is another.
      if (!session.ended) this.#regions.splice(this.#regions.indexOf(region), 1);
      throw error;
    }
  }

  #insert(region: SharedRegion): void {
    this.#regions.push(region);
    this.#regions.sort((a, b) => a.guestAddress - b.guestAddress);
  }

  /** Takes a region away. */
  async remove(session: FrontEndSession, region: SharedRegion): Promise<void> {
    const at = this.#regions.indexOf(region);
    if (at < 0) throw new RangeError("the region is not shared");
    this.#regions.splice(at, 1);
    if (slots(session)) await session.request("REM_MEM_REG", wire(session, region));
    else await this.#sendTable(session);
  }

  async #sendTable(session: FrontEndSession): Promise<void> {
    if (this.#regions.length > MAX_REGIONS) {
      throw new ProtocolError("SET_MEM_TABLE", `at most ${MAX_REGIONS} regions, got ${this.#regions.length}`);
    }
    await session.request("SET_MEM_TABLE", this.#wire(session), this.#regions.map(({ fd }) => fd));
  }

  #wire(session: FrontEndSession): readonly MemoryRegion[] {
    return this.#regions.map((region) => wire(session, region));
  }

  /**
   * Tells a new session everything.
   *
   * @throws {LostFeaturesError} when its back-end takes fewer regions than are shared
   */
  async replay(session: FrontEndSession): Promise<void> {
    if (this.#regions.length === 0) return;
    if (!slots(session)) return await this.#sendTable(session);
    const { value } = await session.request("GET_MAX_MEM_SLOTS", undefined);
    if (value < this.#regions.length) {
      throw new LostFeaturesError(`room for ${this.#regions.length} memory regions, as it takes ${value}`);
    }
    for (const region of this.#regions) {
      await session.request("ADD_MEM_REG", wire(session, region), [region.fd]);
    }
  }

  /**
   * Shares a region whose pages have not arrived yet, after POSTCOPY_LISTEN.
   *
   * @returns the region with the address that it has in the back-end
   */
  async addPostcopy(session: FrontEndSession, region: SharedRegion): Promise<MemoryRegion> {
    this.#insert(region);
    if (slots(session)) {
      const { value } = await session.exchange(
        "ADD_MEM_REG",
        wire(session, region),
        [region.fd],
        frontendMessages.ADD_MEM_REG.postcopyReply,
      );
      return value as MemoryRegion;
    }
    const { value } = await session.exchange(
      "SET_MEM_TABLE",
      this.#wire(session),
      this.#regions.map(({ fd }) => fd),
      frontendMessages.SET_MEM_TABLE.postcopyReply,
    );
    return (value as readonly MemoryRegion[])[this.#regions.indexOf(region)];
  }

  /** Tells the back-end that its addresses are known: from here on its page faults are resolved. */
  async acknowledgePostcopy(session: FrontEndSession): Promise<void> {
    if (slots(session)) await session.exchange("ADD_MEM_REG", undefined, [], undefined);
    else await session.exchange("SET_MEM_TABLE", [], [], undefined);
  }
}

function slots(session: FrontEndSession): boolean {
  return session.negotiated("CONFIGURE_MEM_SLOTS");
}

function wire(session: FrontEndSession, region: SharedRegion): MemoryRegion {
  const guestAddress = BigInt(region.guestAddress);
  return {
    guestAddress,
    size: BigInt(region.byteLength),
    userAddress: session.negotiated("GPA_ADDRESSES") ? guestAddress : region.userAddress,
    mmapOffset: BigInt(region.mmapOffset ?? 0),
  };
}
