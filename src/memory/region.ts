/**
 * A piece of guest memory, mapped.
 *
 * @module
 */

import { fileStatus } from "../../ffi/fd.ts";
import { allowAccess, type MappedMemory, Mapping, MappingView } from "../../ffi/mapping.ts";
import { registerMissing } from "../../ffi/userfaultfd.ts";

/** Where a piece of guest memory is, for guest, front-end and file. All numbers are below 2^53. */
export interface RegionPlace {
  /** Guest physical address of the first byte. */
  readonly guestAddress: number;
  /** Bytes. */
  readonly size: number;
  /** Address of the first byte in the front-end. */
  readonly userAddress: number;
  /** Offset of the first byte in the file. */
  readonly mmapOffset: number;
}

/** Something about guest memory that a front-end got wrong. */
export class MemoryError extends Error {
  /** The error's class name. */
  override readonly name = "MemoryError";
}

function show({ guestAddress, size }: RegionPlace): string {
  return `0x${guestAddress.toString(16)}+0x${size.toString(16)}`;
}

/** Where a region is in this process: what another thread needs in order to use it. Can be cloned. */
export interface RegionShare extends RegionPlace {
  /** Names it among the regions of the session. */
  readonly id: number;
  /** Address of the first byte mapped. */
  readonly address: bigint;
  /** Bytes mapped. */
  readonly byteLength: number;
  /** Offset of the first byte of the region. */
  readonly bufferOffset: number;
  /** Whether it may be touched. */
  readonly accessible: boolean;
}

let lastId = 0;

/** A mapped piece of guest memory. */
export class Region implements RegionPlace {
  /** Names it among the regions of its session. */
  readonly id: number;
  /** Guest physical address of the first byte. */
  readonly guestAddress: number;
  /** Guest physical address behind the last byte. */
  readonly guestEnd: number;
  /** Bytes. */
  readonly size: number;
  /** Address of the first byte in the front-end. */
  readonly userAddress: number;
  /** Offset of the first byte in the file. */
  readonly mmapOffset: number;
  /** Address of the first byte in this process. */
  readonly hostAddress: number;
  /** Offset of the first byte in {@link buffer}. */
  readonly bufferOffset: number;
  /** The memory as bytes, starting with the first byte of the region. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The memory for reading and writing fields, starting with the first byte of the region. */
  readonly view: DataView<ArrayBuffer>;
  readonly #mapping: MappedMemory;
  readonly #file: string;
  #accessible: boolean;
  #pins = 0;
  #retired = false;

  /**
   * Maps a region. The descriptor may be closed afterwards.
   *
   * @param accessible false maps it without access until {@link serveFaults}
   * @throws {MemoryError} when it is no file, or one shorter than the region says
   * @throws {OsError} when it cannot be mapped
   */
  constructor(place: RegionPlace, fd: number, accessible?: boolean);
  /** Takes over a region that is mapped already. */
  constructor(place: RegionPlace, mapped: RegionHome, accessible?: boolean);
  constructor(place: RegionPlace, where: number | RegionHome, accessible = true) {
    const { id, mapping, bufferOffset, file } = typeof where === "number"
      ? mapFile(place, where, accessible)
      : where;
    this.id = id;
    this.guestAddress = place.guestAddress;
    this.guestEnd = place.guestAddress + place.size;
    this.size = place.size;
    this.userAddress = place.userAddress;
    this.mmapOffset = place.mmapOffset;
    this.#file = file;
    this.#accessible = accessible;
    this.#mapping = mapping;
    this.bufferOffset = bufferOffset;
    this.hostAddress = Number(mapping.address) + bufferOffset;
    this.bytes = new Uint8Array(mapping.buffer, bufferOffset, this.size);
    this.view = new DataView(mapping.buffer, bufferOffset, this.size);
  }

  /** The region of another thread. `onRelease` is called when nothing here uses it any more: then it may be unmapped. */
  static of(share: RegionShare, onRelease: () => void): Region {
    const { id, address, byteLength, bufferOffset, accessible } = share;
    const mapping = new MappingView(address, byteLength, onRelease);
    return new Region(share, { id, mapping, bufferOffset, file: "" }, accessible);
  }

  /**
   * What another thread needs in order to use it. It must stay mapped until that has let go of it.
   *
   * @ignore
   */
  share(): RegionShare {
    const { id, guestAddress, size, userAddress, mmapOffset, bufferOffset, accessible } = this;
    const { address, byteLength } = this.#mapping;
    return { id, guestAddress, size, userAddress, mmapOffset, bufferOffset, accessible, address, byteLength };
  }

  /** The memory; byte {@link bufferOffset} of it is the first of the region. */
  get buffer(): ArrayBuffer {
    return this.#mapping.buffer;
  }

  /** Whether it may be touched. Before {@link serveFaults}, touching it would end the process. */
  get accessible(): boolean {
    return this.#accessible;
  }

  /** Whether this is the same memory at the same place. */
  equals(place: RegionPlace, fd: number): boolean {
    const status = fileStatus(fd);
    return place.guestAddress === this.guestAddress && place.size === this.size &&
      place.userAddress === this.userAddress && place.mmapOffset === this.mmapOffset &&
      this.#file === `${status.device}:${status.inode}`;
  }

  /**
   * Opens a region that was mapped without access: the first touch of each page is reported on a userfaultfd, and waits
   * until the page has come.
   *
   * @throws {OsError}
   */
  serveFaults(userfaultfd: number): void {
    registerMissing(userfaultfd, this.#mapping.address, this.#mapping.byteLength);
    allowAccess(this.#mapping.address, this.#mapping.byteLength);
    this.#accessible = true;
  }

  /**
   * Survives what the front-end does to the file: when it is too short for an access, all of the region is replaced by zeros
   * and `onLost` is called, once.
   *
   * @throws {OsError}
   */
  watch(onLost: (error: MemoryError) => void): void {
    this.#mapping.watch(() =>
      onLost(
        new MemoryError(
          `region ${
            show(this)
          } was lost (SIGBUS): its file has become shorter, or there is no memory for its pages`,
        ),
      )
    );
  }

  /** The thread that has mapped it has opened it ({@link serveFaults}). */
  opened(): void {
    this.#accessible = true;
  }

  /** Keeps the memory mapped for a request that uses it, until {@link unpin}. */
  pin(): void {
    this.#pins++;
  }

  /** Ends {@link pin}. */
  unpin(): void {
    this.#pins--;
    if (this.#retired && this.#pins === 0) this.#mapping.unmap();
  }

  /** Unmaps as soon as no request uses it any more. */
  retire(): void {
    this.#retired = true;
    if (this.#pins === 0) this.#mapping.unmap();
  }
}

/** What a region is made of. */
interface RegionHome {
  readonly id: number;
  readonly mapping: MappedMemory;
  readonly bufferOffset: number;
  readonly file: string;
}

function mapFile(place: RegionPlace, fd: number, accessible: boolean): RegionHome {
  const status = fileStatus(fd);
  // Only a file says how far it can be touched: /dev/zero, for one, can be mapped at any offset, and has nothing there.
  if (status.kind !== "file") {
    throw new MemoryError(
      `region ${show(place)} must lie in a file, got a descriptor of kind ${status.kind}`,
    );
  }
  if (place.mmapOffset + place.size > status.size) {
    throw new MemoryError(
      `region ${show(place)} ends at byte ${place.mmapOffset + place.size} of its file, ` +
        `which has ${status.size}; touching the rest would end the process`,
    );
  }
  // The block size of a hugetlbfs file is its page size, and mappings must keep to it.
  const page = Math.max(4096, status.blockSize);
  const start = Math.floor(place.mmapOffset / page) * page;
  const end = Math.ceil((place.mmapOffset + place.size) / page) * page;
  const mapping = new Mapping(fd, end - start, start, accessible);
  return {
    id: ++lastId,
    mapping,
    bufferOffset: place.mmapOffset - start,
    file: `${status.device}:${status.inode}`,
  };
}
