import type { TestContext } from "node:test";
import { close } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { GuestMemory, type RegionSource } from "../../src/memory/guest_memory.ts";
import { onEnd } from "../support/cleanup.ts";

export const PAGE = 4096;

/** A memory file that is closed when the test is over. */
export function file(t: TestContext, name: string, pages: number): number {
  const fd = memoryFile(name, pages * PAGE);
  onEnd(t, () => close(fd));
  return fd;
}

/** Guest memory that is taken away when the test is over. */
export function guestMemory(t: TestContext, maxRegions?: number): GuestMemory {
  const memory = new GuestMemory(maxRegions);
  onEnd(t, () => memory.clear());
  return memory;
}

/** Where the front-end of these tests has what the guest has at 0. */
export const USER = 0x7f00_0000_0000;

/** A region whose user address follows from its guest address. All in pages. */
export function region(fd: number, guestPage: number, pages: number, filePage = 0): RegionSource {
  return {
    guestAddress: guestPage * PAGE,
    size: pages * PAGE,
    userAddress: USER + guestPage * PAGE,
    mmapOffset: filePage * PAGE,
    fd,
  };
}
