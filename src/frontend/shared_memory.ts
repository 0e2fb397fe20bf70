/**
 * Memory that a front-end shares with its back-end.
 *
 * @module
 */

import { addSeals, close, Seal } from "../../ffi/fd.ts";
import { Mapping, memoryFile } from "../../ffi/mapping.ts";

const PAGE = 4096;

/** A piece of shared memory. */
export interface Piece {
  /** Guest physical address: what stands in descriptors. */
  readonly guestAddress: number;
  /** Address in this process: what SET_VRING_ADDR takes. */
  readonly userAddress: bigint;
  /** The bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * A "guest's" memory: a memory file that is mapped here and that the back-end maps too. Pieces are handed out one after
 * the other and never taken back; it all goes at once with {@link close}.
 */
export class SharedMemory {
  /** The memory file. */
  readonly fd: number;
  /** Bytes. */
  readonly byteLength: number;
  /** Guest physical address of the first byte. */
  readonly guestAddress: number;
  readonly #mapping: Mapping;
  #used = 0;
  #closed = false;

  /**
   * Makes zeroed memory.
   *
   * @param byteLength bytes, rounded up to whole pages
   * @param guestAddress where the guest would see it; any multiple of 4096
   * @throws {OsError}
   */
  constructor(byteLength: number, guestAddress = 0x1000_0000) {
    this.byteLength = Math.ceil(byteLength / PAGE) * PAGE;
    this.guestAddress = guestAddress;
    this.fd = memoryFile("vhost-user-guest", this.byteLength);
    try {
      // Promises the back-end that mapped pages stay: it need not fear SIGBUS.
      addSeals(this.fd, Seal.SHRINK);
      this.#mapping = new Mapping(this.fd, this.byteLength);
    } catch (error) {
      close(this.fd);
      throw error;
    }
  }

  /** Address of the first byte in this process. */
  get userAddress(): bigint {
    return this.#mapping.address;
  }

  /**
   * Hands out bytes that nobody else has.
   *
   * @param align a power of two
   * @throws {RangeError} when too few are left
   */
  allocate(byteLength: number, align = 16): Piece {
    const start = Math.ceil(this.#used / align) * align;
    if (start + byteLength > this.byteLength) {
      throw new RangeError(`shared memory has ${this.byteLength - start} bytes left, ${byteLength} wanted`);
    }
    this.#used = start + byteLength;
    return this.piece(start, byteLength);
  }

  /** Bytes at an offset, whether handed out or not. */
  piece(offset: number, byteLength: number): Piece {
    return {
      guestAddress: this.guestAddress + offset,
      userAddress: this.#mapping.address + BigInt(offset),
      bytes: new Uint8Array(this.#mapping.buffer, offset, byteLength),
    };
  }

  /** Unmaps it and closes the file, once. Views of it become empty. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#mapping.unmap();
    close(this.fd);
  }
}
