/**
 * Guest memory: the table, slots, and its arrival by postcopy.
 *
 * @module
 */

import type { RegionSource } from "../../memory/guest_memory.ts";
import type { IotlbEntry } from "../../memory/iotlb.ts";
import type { Region } from "../../memory/region.ts";
import { FieldError } from "../../protocol/error.ts";
import type { frontendMessages } from "../../protocol/messages.ts";
import { type Iotlb, IotlbType, type MemoryRegion } from "../../protocol/payloads.ts";
import { type Handlers, Reply } from "../../transport/responder.ts";
import { after, type Awaitable } from "../awaitable.ts";
import type { SessionState } from "../session_state.ts";

/** A plain number of a 64-bit field. No machine has as much memory as 2^53. */
function plain(field: string, value: bigint): number {
  if (value >= 1n << 53n) throw new FieldError(field, "below 2^53", value);
  return Number(value);
}

function source(region: MemoryRegion, fd: number, accessible = true): RegionSource {
  return {
    guestAddress: plain("guest address", region.guestAddress),
    size: plain("region size", region.size),
    userAddress: plain("user address", region.userAddress),
    mmapOffset: plain("mmap offset", region.mmapOffset),
    fd,
    accessible,
  };
}

/** A region with the address that it has here, for a front-end that resolves our page faults. */
function ours(region: Region): MemoryRegion {
  return {
    guestAddress: BigInt(region.guestAddress),
    size: BigInt(region.size),
    userAddress: BigInt(region.hostAddress),
    mmapOffset: BigInt(region.mmapOffset),
  };
}

function checkMemory(state: SessionState, regions: readonly { readonly size: number }[]): void {
  const { regions: most } = state.limits;
  if (regions.length > most) {
    throw new FieldError("number of regions", `at most ${most} (limit regions)`, regions.length);
  }
  state.host.account.check("guest memory", regions.reduce((sum, { size }) => sum + size, 0));
}

function countMemory(state: SessionState): void {
  state.host.account.set("guest memory", state.memory.regions.reduce((sum, { size }) => sum + size, 0));
}

/** The handlers. */
export function memoryHandlers(state: SessionState): Handlers<typeof frontendMessages> {
  const { memory, postcopy } = state;
  const acknowledged = (): Awaitable<void> => {
    postcopy.acknowledged();
    return state.shareMemory();
  };
  return {
    SET_MEM_TABLE: (regions, fds) => {
      if (fds.length !== regions.length) {
        throw new FieldError("descriptors", `one for each of ${regions.length} regions`, fds.length);
      }
      if (postcopy.listening && regions.length === 0) return acknowledged();
      const files = fds.list();
      const sources = regions.map((region, i) => source(region, files[i], !postcopy.listening));
      checkMemory(state, sources);
      return after(state.changeMemory(() => memory.replace(sources)), () => {
        countMemory(state);
        if (!postcopy.listening) return;
        postcopy.await(memory.regions);
        const byGuest = new Map(memory.regions.map((region) => [region.guestAddress, region]));
        return new Reply(sources.map(({ guestAddress }) => ours(byGuest.get(guestAddress) as Region)));
      });
    },
    GET_MAX_MEM_SLOTS: () => BigInt(state.limits.regions),
    ADD_MEM_REG: (region, fds) => {
      if (region === undefined) {
        if (!postcopy.listening) {
          throw new FieldError("payload", "a region, unless postcopy arrives", "8 bytes");
        }
        return acknowledged();
      }
      const [fd] = fds.list();
      if (fd === undefined) throw new FieldError("descriptors", "1", 0);
      const wanted = source(region, fd, !postcopy.listening);
      checkMemory(state, [...memory.regions, wanted]);
      const added = memory.add(wanted);
      countMemory(state);
      return after(state.shareMemory(), () => {
        if (!postcopy.listening) return;
        postcopy.await([added]);
        return new Reply(ours(added));
      });
    },
    REM_MEM_REG: (region) => {
      return state.changeMemory(() => {
        memory.remove(source(region, -1));
        countMemory(state);
        return true;
      });
    },
    IOTLB_MSG: (message) => iotlbMessage(state, message),
    POSTCOPY_ADVISE: () => new Reply<void>(undefined, [postcopy.advise()]),
    POSTCOPY_LISTEN: () => postcopy.listen(memory.regions.length),
    POSTCOPY_END: () => postcopy.end(),
  };
}

/** The largest address that a number holds exactly, and one more: ranges of a whole address space end here. */
const END = 2 ** 53;

/**
 * Entries come and go. What a request that is under way may use goes only when that has completed: the answer says that
 * nothing uses it any more.
 *
 * @throws {FieldError}
 */
function iotlbMessage(state: SessionState, message: Iotlb): Awaitable<void> {
  const iova = plain("iova", message.iova);
  if (message.type === IotlbType.UPDATE) {
    const entry = iotlbEntry(iova, message);
    return state.everywhere((host) => host.updateIotlb(entry));
  }
  if (message.type !== IotlbType.INVALIDATE) {
    throw new FieldError(
      "type",
      `${IotlbType.UPDATE} (update) or ${IotlbType.INVALIDATE} (invalidate)`,
      message.type,
    );
  }
  // All 2^64 addresses are a size of 0, as 64 bits cannot count them.
  const size = message.size === 0n ? END - iova : Math.min(Number(message.size), END - iova);
  return state.everywhere((host) => host.invalidateIotlb(iova, size));
}

function iotlbEntry(iova: number, { size, userAddress, permission }: Iotlb): IotlbEntry {
  if (size === 0n) throw new FieldError("size", "more than 0", 0);
  const address = plain("user address", userAddress);
  return { iova, size: Math.min(Number(size), END - iova), address, permission };
}
