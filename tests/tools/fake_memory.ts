import { close } from "../../ffi/fd.ts";
import { Mapping } from "../../ffi/mapping.ts";
import type { MemoryRegion } from "../../src/protocol/payloads.ts";
import type { Fault } from "./fake_faults.ts";

interface Region {
  readonly place: MemoryRegion;
  readonly mapping: Mapping;
}

/** Memory of the front-end. */
export class FakeMemory {
  readonly #fault: Fault | undefined;
  readonly #regions: Region[] = [];

  constructor(fault: Fault | undefined) {
    this.#fault = fault;
  }

  get count(): number {
    return this.#regions.length;
  }

  /** Maps a region and closes its descriptor. */
  map(place: MemoryRegion, fd: number): void {
    try {
      if (this.#fault === "knows one region only" && this.#regions.length === 1) return;
      const offset = this.#fault === "ignores mmap offsets" ? 0 : Number(place.mmapOffset);
      const start = Math.floor(offset / 4096) * 4096;
      const mapping = new Mapping(fd, Number(place.size) + offset - start, start);
      this.#regions.push({ place: { ...place, mmapOffset: BigInt(offset - start) }, mapping });
    } finally {
      close(fd);
    }
  }

  /** Bytes by address, which must lie in one region. */
  area(address: bigint, length: number, space: "guest" | "user"): DataView | undefined {
    const key = space === "guest" ? "guestAddress" : "userAddress";
    for (const { place, mapping } of this.#regions) {
      const at = address - place[key];
      if (at < 0n || at + BigInt(length) > place.size) continue;
      return new DataView(mapping.buffer, Number(at + place.mmapOffset), length);
    }
    return undefined;
  }

  /** Bytes of guest memory, which may span regions. */
  guest(address: bigint, length: number): Uint8Array[] | undefined {
    const pieces: Uint8Array[] = [];
    for (let done = 0; done < length;) {
      const at = address + BigInt(done);
      const region = this.#regions.find(({ place }) =>
        at >= place.guestAddress && at < place.guestAddress + place.size
      );
      if (region === undefined) return undefined;
      const { place, mapping } = region;
      const left = Number(place.guestAddress + place.size - at);
      const size = Math.min(length - done, left);
      const offset = Number(at - place.guestAddress + place.mmapOffset);
      pieces.push(new Uint8Array(mapping.buffer, offset, size));
      done += size;
    }
    return pieces;
  }

  /** Removes a region. Returns whether it was there. */
  remove(value: MemoryRegion): boolean {
    const at = this.#regions.findIndex(({ place }) =>
      place.guestAddress === value.guestAddress && place.size === value.size &&
      place.userAddress === value.userAddress
    );
    if (at >= 0) this.#regions.splice(at, 1)[0].mapping.unmap();
    return at >= 0;
  }

  /** Removes them all. */
  drop(): void {
    for (const { mapping } of this.#regions.splice(0)) mapping.unmap();
  }
}
